package authflow

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const (
	waitLong = 10 * time.Second
	waitStep = 5 * time.Millisecond
)

func TestTwoTabsConnectTwoOrgs(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	globex := tokenstore.Slot{Integration: "Graph", Org: "globex"}
	other, err := e.broker.ConnectLink(t.Context(), globex, "ops", 0)
	require.NoError(t, err)
	b := e.newBrowser()
	first, second := b.consent(e.link()), b.consent(other.URL)

	require.Equal(t, http.StatusSeeOther, b.get(second).status)
	require.Equal(t, http.StatusSeeOther, b.get(first).status)
	one, two := e.stored(acme), e.stored(globex)
	require.NotNil(t, one)
	require.NotNil(t, two)
	require.NotEqual(t, one.Token.Access, two.Token.Access)
}

func TestTwoTabsWithOneLinkConnectOnce(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b, link := e.newBrowser(), e.link()
	first, second := b.consent(link), b.consent(link)

	require.Equal(t, http.StatusSeeOther, b.get(first).status)
	grant := e.stored(acme).Grant
	require.Equal(t, http.StatusForbidden, b.get(second).status)
	require.Equal(t, 1, e.exchanges())
	require.Equal(t, grant, e.stored(acme).Grant)
	require.Equal(t, 1, e.count(resultTicketSpent))
}

func TestABrowserHoldsFiveConsentsAtMost(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b, link := e.newBrowser(), e.link()
	var callbacks []string
	for range maxConsents + 2 {
		callbacks = append(callbacks, b.consent(link))
		require.LessOrEqual(t, len(b.client.Jar.Cookies(mustParse(t, e.public))), maxConsents)
	}
	require.Equal(t, http.StatusBadRequest, b.get(callbacks[0]).status, "the oldest were given up")
	require.Equal(t, http.StatusSeeOther, b.get(callbacks[len(callbacks)-1]).status)
}

func TestCookieIsBoundToTheHostAndRemovedAsItWasSet(t *testing.T) {
	for name, tls := range map[string]bool{"https": true, "http on loopback": false} {
		t.Run(name, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{tls: tls})
			b := e.newBrowser()
			start := b.do(http.MethodPost, e.link(), nil)
			require.Equal(t, http.StatusSeeOther, start.status)
			set, err := http.ParseSetCookie(start.header.Get("Set-Cookie"))
			require.NoError(t, err)
			require.Equal(t, tls, strings.HasPrefix(set.Name, "__Host-"))
			require.Equal(t, tls, set.Secure)
			require.True(t, set.HttpOnly)
			require.Equal(t, http.SameSiteLaxMode, set.SameSite)
			require.Equal(t, "/", set.Path)
			require.Equal(t, 600, set.MaxAge)
			require.Empty(t, set.Domain)
			require.Len(t, b.client.Jar.Cookies(mustParse(t, e.public)), 1)

			callback, err := e.provider.Visit(start.location)
			require.NoError(t, err)
			sent := b.get(callback.String())
			require.Equal(t, http.StatusSeeOther, sent.status)
			cleared, err := http.ParseSetCookie(sent.header.Get("Set-Cookie"))
			require.NoError(t, err)
			require.Negative(t, cleared.MaxAge)
			cleared.Value, cleared.MaxAge, cleared.Raw = set.Value, set.MaxAge, set.Raw
			require.Equal(t, set, cleared, "identical but for value and age")
			require.Empty(t, b.client.Jar.Cookies(mustParse(t, e.public)))
		})
	}
}

func TestPublicURLWithAPathPrefix(t *testing.T) {
	e := newConsentEnv(t, consentSetup{prefix: "/int/bifrost"})
	e.provider.Register(e.public + "/oauth/callback/Graph") // and no other
	b := e.newBrowser()
	link := e.link()
	require.True(t, strings.HasPrefix(link, e.public+"/oauth/connect/Graph?"))

	sent := b.get(b.consent(link))
	require.Equal(t, http.StatusSeeOther, sent.status)
	require.True(t, strings.HasPrefix(sent.location, e.public+"/oauth/connect/Graph/done?"), sent.location)
	require.Equal(t, http.StatusOK, b.get(sent.location).status)
	require.Equal(t, e.public+"/oauth/callback/Graph", e.provider.Posts()[0].Form.Get("redirect_uri"))
}

// Replica A shows the page, B starts the consent, A takes the callback and B shows the result.
func TestAnyReplicaServesAnyStep(t *testing.T) {
	redis := storetest.StartRedis(t)
	e := newConsentEnv(t, consentSetup{store: &faultyStore{Backend: storetest.OpenRedis(t, redis.URL)}})
	replicas, turn := []http.Handler{e.newBroker(storetest.OpenRedis(t, redis.URL)).Handler(), e.handler}, 0
	e.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		replicas[turn%2].ServeHTTP(w, r)
		turn++
	})
	b := e.newBrowser()
	sent := b.get(b.consent(e.link()))
	require.Equal(t, http.StatusSeeOther, sent.status, sent.body)
	require.Equal(t, http.StatusOK, b.get(sent.location).status)
	require.Equal(t, 4, turn)
	require.NotNil(t, e.stored(acme))
}
