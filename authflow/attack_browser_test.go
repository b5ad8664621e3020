package authflow

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	notHere = "This consent was not started in this browser"
	isOver  = "This consent has ended"
)

// An attacker begins a consent for an org of his own and has acme's administrator complete it: acme's tokens would be his.
func TestC2AConsentEndsInTheBrowserThatBeganIt(t *testing.T) {
	g := newGround(t, consentSetup{})
	attacker, admin := g.newBrowser(), g.newBrowser()
	lure := attacker.click(g.linkFor(mallory))
	admin.click(g.linkFor(acme)) // a consent of the administrator's own is under way too
	cookies := admin.cookies()
	before := g.state()

	callback := g.visit(admin, lure) // the administrator is signed in there and consents
	g.refused(admin, callback, http.StatusBadRequest, notHere)
	g.refused(g.newBrowser(), callback, http.StatusBadRequest, notHere)
	name := (&consents{Broker: g.broker}).cookie(mustParse(t, callback).Query().Get("state"), "", 0).Name
	for _, value := range []string{"", "made-up", newSecret(), mustParse(t, callback).Query().Get("state"), cookies[0]} {
		got := g.newBrowser().do(http.MethodGet, callback, nil, "Cookie", name+"="+value)
		g.requireRefusal(got, callback, http.StatusBadRequest, notHere)
	}
	require.Equal(t, cookies, admin.cookies())
	g.requireUntouched(before, "the state is not even spent (contract 3.4)")
	require.Nil(t, g.stored(mallory))
}

// The attacker's own consent, with his code, is driven through the victim's browser: acme would write into his account.
func TestC3NobodyIsConnectedToAnAttackersAccount(t *testing.T) {
	g := newGround(t, consentSetup{})
	attacker, victim := g.newBrowser(), g.newBrowser()
	theirs := mustParse(t, g.consent(attacker, g.linkFor(mallory)))
	link := g.linkFor(acme)
	ours := g.consent(victim, link)
	before := g.state()

	cross := []string{"Sec-Fetch-Site", "cross-site", "Referer", "https://evil.example/"}
	for name, target := range map[string]string{
		"as it is":        theirs.String(),
		"without a state": with(t, theirs.String(), "state", ""),
		"an empty state":  strings.Replace(theirs.String(), "state=", "state=&x=", 1),
		"two states":      theirs.String() + "&state=" + mustParse(t, ours).Query().Get("state"),
	} {
		got := victim.do(http.MethodGet, target, nil, cross...)
		require.Equal(t, http.StatusBadRequest, got.status, name)
		g.requireUntouched(before, name)
	}

	// Even if he knew the victim's state: the code is not of the victim's verifier (RFC 7636), and the provider refuses it.
	injected := with(t, ours, "code", theirs.Query().Get("code"))
	g.refused(victim, injected, http.StatusBadGateway, "The provider did not complete the consent")
	require.Equal(t, before.posts+1, g.posts())
	require.NotEmpty(t, g.provider.Posts()[before.posts].Form.Get("code_verifier"))
	require.Equal(t, before.rows, g.dump("r"))
	require.Equal(t, http.StatusSeeOther, victim.get(g.consent(victim, link)).status, "the victim's link still connects")
}

// The callback comes again: from history, a log, a reload, or twenty times at once at three replicas.
func TestC4ACallbackIsUsedOnce(t *testing.T) {
	g := newGround(t, consentSetup{})
	b := g.newBrowser()
	callback := g.consent(b, g.linkFor(acme))
	cookies := b.client.Jar.Cookies(mustParse(t, callback))
	before := g.state()

	statuses, shown := g.rush(b, callback, 20)
	require.Equal(t, map[int]int{http.StatusSeeOther: 1, http.StatusBadRequest: 19}, statuses)
	require.Equal(t, before.posts+1, g.posts())
	require.Empty(t, g.provider.Reuses())
	require.NotEqual(t, before.rows, g.dump("r"))

	after := g.state()
	for range 3 { // a reload of the result shows it again
		require.Equal(t, http.StatusOK, b.get(shown).status)
		g.requireUntouched(after)
	}
	for range 3 {
		fresh := g.newBrowser()
		g.refused(fresh, callback, http.StatusBadRequest, notHere)
		fresh.client.Jar.SetCookies(mustParse(t, callback), secured(cookies))
		require.NotEmpty(t, fresh.cookies())
		g.refused(fresh, callback, http.StatusBadRequest, isOver)
		g.requireUntouched(after)
	}
	issued, known := g.provider.Lookup(g.stored(acme).Token.Access)
	require.True(t, known && issued.Alive, "the provider had no reason to revoke anything")
}

// secured returns cookies of a jar as they were set: a jar tells names and values alone.
func secured(cookies []*http.Cookie) (out []*http.Cookie) {
	for _, c := range cookies {
		out = append(out, &http.Cookie{Name: c.Name, Value: c.Value, Path: "/", Secure: true, HttpOnly: true})
	}
	return out
}

// rush opens the URL n times at once, each with the browser's cookies, and returns how often each status came and where the
// last redirect led.
func (g *ground) rush(b *browser, target string, n int) (statuses map[int]int, location string) {
	g.t.Helper()
	cookies, statuses := b.client.Jar.Cookies(mustParse(g.t, target)), map[int]int{}
	var mu sync.Mutex // guards the results
	var all sync.WaitGroup
	start := make(chan struct{})
	for range n {
		all.Go(func() {
			req, _ := http.NewRequest(http.MethodGet, target, nil) // it is a URL
			for _, cookie := range cookies {
				req.AddCookie(cookie)
			}
			<-start
			resp, err := b.client.Transport.RoundTrip(req)
			if err != nil {
				return // counted as missing
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			statuses[resp.StatusCode]++
			if to := resp.Header.Get("Location"); to != "" {
				location = to
			}
		})
	}
	close(start)
	all.Wait()
	return statuses, location
}

// A mail gateway or a preview opens everything first, the link and the callback.
func TestC5AScannerThatOpensTheLinkFirstSpoilsNothing(t *testing.T) {
	g := newGround(t, consentSetup{})
	scanner, b, link := g.newBrowser(), g.newBrowser(), g.linkFor(acme)
	scan := func(target string) {
		before := g.state()
		for _, header := range [][]string{nil, {"Sec-Purpose", "prefetch;prerender"}, {"Purpose", "prefetch"}, {"User-Agent", "Scanner/1.0"}} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
				got := scanner.do(method, target, nil, header...)
				require.Less(t, got.status, 500)
				require.Empty(t, got.header.Get("Set-Cookie"))
				require.Empty(t, got.location)
			}
		}
		g.requireUntouched(before, target)
	}
	scan(link)
	scanner.click(link) // some submit forms too: that begins a consent of its own
	callback := g.consent(b, link)
	scan(link)
	g.failing(unavailable("peek consent:")) // for want of a cookie the state is not even looked up
	scan(callback)
	g.failing(nil)
	g.refused(scanner, callback, http.StatusBadRequest, notHere)

	before := g.posts()
	sent := b.get(callback)
	require.Equal(t, http.StatusSeeOther, sent.status, sent.body)
	require.Equal(t, before+1, g.posts())
	after := g.state()
	require.Equal(t, http.StatusOK, scanner.get(sent.location).status)
	g.requireUntouched(after)
	require.Equal(t, http.StatusOK, b.get(sent.location).status, "the result is there for who connected")
}
