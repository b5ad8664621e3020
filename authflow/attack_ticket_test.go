package authflow

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var (
	mallory = tokenstore.Slot{Integration: "Graph", Org: "mallory"} // an org of an attacker's own
	globex  = tokenstore.Slot{Integration: "Graph", Org: "globex"}
)

const noLink = "This connect link cannot be used"

// Who has no ticket of the operator's cannot bind an account of his own to acme.
func TestC1NobodyConnectsWithoutATicket(t *testing.T) {
	g := newGround(t, consentSetup{})
	used := g.linkFor(globex)
	b := g.newBrowser()
	require.Equal(t, http.StatusSeeOther, b.get(g.consent(b, used)).status)
	soon, err := g.broker.ConnectLink(t.Context(), acme, "ops", time.Nanosecond)
	require.NoError(t, err)
	own, evils := g.linkFor(mallory), g.linkFor(tokenstore.Slot{Integration: "Evil", Org: "acme"})
	base := g.public + "/oauth/connect/Graph"
	before := g.state()

	for name, target := range map[string]string{
		"none":                                 base,
		"an org alone":                         base + "?org=acme&integration=Graph",
		"an empty one":                         base + "?ticket=",
		"one made up":                          base + "?ticket=" + newSecret(),
		"a part of one":                        own[:len(own)-1],
		"one with more":                        own + "A",
		"a key of the shelf's":                 base + "?ticket=" + url.QueryEscape("ticket:"+mustParse(t, own).Query().Get("ticket")),
		"one that has run out":                 soon.URL,
		"one that is spent":                    used,
		"one of another integration":           strings.Replace(evils, "/Evil?", "/Graph?", 1),
		"a bad one before a good one":          base + "?ticket=x&ticket=" + mustParse(t, own).Query().Get("ticket"),
		"a good one in a parameter of the org": base + "?org=" + mustParse(t, own).Query().Get("ticket"),
	} {
		t.Run(name, func(t *testing.T) {
			b := g.newBrowser()
			g.refused(b, target, http.StatusForbidden, noLink) // contract 3.7
			for _, form := range []url.Values{nil, {"org": {"acme"}}, {"ticket": {""}, "org": {"acme"}}} {
				got := b.do(http.MethodPost, target, form, "Sec-Fetch-Site", "same-origin", "Cookie", "ticket=x", "X-Ticket", "x")
				g.requireRefusal(got, target, http.StatusForbidden, noLink)
			}
			require.Empty(t, b.cookies())
			g.requireUntouched(before)
		})
	}

	// A ticket is for its own org, whatever else the request says.
	grown := own + "&org=acme&slot=acme&by=admin"
	require.NotContains(t, b.get(grown).body, "acme")
	form := url.Values{"ticket": {mustParse(t, own).Query().Get("ticket")}, "org": {"acme"}, "Slot": {"acme"}}
	sent := b.do(http.MethodPost, grown, form, "Sec-Fetch-Site", "same-origin")
	require.Equal(t, http.StatusSeeOther, sent.status)
	require.Equal(t, http.StatusSeeOther, b.get(g.visit(b, sent.location)+"&org=acme").status)
	require.NotNil(t, g.stored(mallory))
	g.requireRowsKept(before)
	require.Len(t, g.dump("r"), len(before.rows)+1, "the attacker's own")
}

// requireRowsKept asserts that every connection that was there is as it was.
func (g *ground) requireRowsKept(before state) {
	g.t.Helper()
	now := g.dump("r")
	for key, row := range before.rows {
		require.Equal(g.t, row, now[key])
	}
}

// Nobody fills the store, or memory, without a ticket. With one, a consent is kept for ten minutes on the Shelf: that is
// the contract's, where faults.md thinks of sealed cookies.
func TestC20TheStoreFillsForNobody(t *testing.T) {
	g := newGround(t, consentSetup{})
	link := g.linkFor(acme)
	b := g.newBrowser()
	callback := g.consent(b, link)
	strangers := []string{
		g.public + "/oauth/connect/Graph", g.public + "/oauth/connect/Graph/done?result=", g.public + "/oauth/connect/Graph?ticket=",
		g.public + "/oauth/callback/Graph?code=CANARY-code&state=", g.public + "/oauth/callback/Graph?error=x&state=", callback + "&x=", link + "&x=",
	}
	before, inMemory := g.state(), g.inMemory()
	for n := range 8 {
		for _, target := range strangers {
			stranger := g.newBrowser()
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodOptions} {
				if method == http.MethodPost && strings.HasPrefix(target, link) {
					continue // that is the button
				}
				got := stranger.do(method, target+fmt.Sprint(n), nil)
				require.Less(t, got.status, 500)
				require.Empty(t, got.header.Get("Set-Cookie"))
			}
		}
	}
	g.requireUntouched(before)
	require.Equal(t, inMemory, g.inMemory(), "no connection is kept in memory for a stranger")
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)

	// A ticket's holder who keeps no cookies, at three replicas at once, is bounded too, and everybody else is not.
	greedy := mustParse(t, g.linkFor(globex))
	others := len(g.dump("s"))
	var all sync.WaitGroup
	for range 10 {
		holder := g.newBrowser()
		holder.client.Jar = nil
		all.Go(func() {
			for range 10 {
				resp, err := holder.client.PostForm(greedy.String(), nil)
				if err == nil {
					_ = resp.Body.Close()
				}
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, len(g.dump("s"))-others, maxPerLink+2, "its consents, the list of them, and the mark that one is running")
	over := g.newBrowser().do(http.MethodPost, greedy.String(), nil)
	g.requireRefusal(over, greedy.String(), http.StatusTooManyRequests, "followed too often at once")
	g.connectWith(g.linkFor(acme))
}

// inMemory counts what the replicas keep.
func (g *ground) inMemory() (n int) {
	for _, b := range g.replicas {
		for range b.conns.all() {
			n++
		}
	}
	return n
}
