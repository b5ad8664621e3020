package authflow

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestConsentConnectsExactlyTheTicketsSlot(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b, link := e.newBrowser(), e.link()
	callback := b.consent(link)
	require.True(t, e.pending())
	require.True(t, strings.HasPrefix(callback, RedirectURI(e.public, "Graph")+"?"))

	sent := b.get(callback)
	require.Equal(t, http.StatusSeeOther, sent.status, sent.body)
	to, err := url.Parse(sent.location)
	require.NoError(t, err)
	require.NotContains(t, to.RawQuery, "code")
	require.NotContains(t, to.RawQuery, "state")

	require.Equal(t, 1, e.exchanges())
	rec := e.stored(acme)
	require.NotNil(t, rec)
	require.Equal(t, "ops", rec.ConnectedBy)
	issued, known := e.provider.Lookup(rec.Token.Access)
	require.True(t, known)
	require.True(t, issued.Alive)
	require.Nil(t, e.stored(tokenstore.Slot{Integration: "Graph", Org: tokenstore.Global}))
	require.False(t, e.pending())
	require.Equal(t, 1, e.count(resultConnected))

	for range 2 { // a reload shows it again
		page := b.get(sent.location)
		require.Equal(t, http.StatusOK, page.status)
		require.Contains(t, page.body, "Graph is connected")
		require.Contains(t, page.body, "acme")
		require.Contains(t, page.body, "Users.Read")
		require.NotContains(t, page.body, "no refresh token")
		require.NotContains(t, page.body, "CANARY")
	}
	require.Equal(t, http.StatusForbidden, b.get(link).status, "a successful connect spends the link")
	require.NotContains(t, e.logs.String(), "CANARY")
	require.NotContains(t, e.logs.String(), "ticket")
	require.Contains(t, e.logs.String(), `"msg":"connected","integration":"Graph","result":"connected","org":"acme","by":"ops"`)
}

func TestDonePageTellsWhatIsMissing(t *testing.T) {
	e := newConsentEnv(t, consentSetup{provider: authflowtest.Config{NoRefresh: true, Scopes: []string{"Profile.Read"}}})
	b := e.newBrowser()
	shown := b.get(b.consent(e.link())).location
	page := b.get(shown)
	require.Contains(t, page.body, "The provider gave no refresh token.")
	require.Contains(t, page.body, "<dt>Missing</dt><dd><ul class=\"tags\"><li><code>offline_access</code></li><li><code>Users.Read</code></li></ul>")
	require.Equal(t, 1, e.count(resultNoRefresh))
	require.Equal(t, http.StatusNotFound, b.get(e.public+"/oauth/connect/Graph/done").status)
	require.Equal(t, http.StatusNotFound, b.get(strings.Replace(shown, "/Graph/", "/Other/", 1)).status)
}

// Every case begins with a consent that would succeed: nothing may be exchanged, stored or changed, and where the state was not
// spent, the right callback still works.
func TestFaultyCallbacksChangeNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		issuer string
		spoil  func(t *testing.T, e *consentEnv, callback string) string
		method string
		status int
		spent  bool
	}{
		"no parameters":       {spoil: func(_ *testing.T, _ *consentEnv, c string) string { return strings.Split(c, "?")[0] }},
		"no state":            {spoil: func(t *testing.T, _ *consentEnv, c string) string { return with(t, c, "state", "") }},
		"a made-up state":     {spoil: func(t *testing.T, _ *consentEnv, c string) string { return with(t, c, "state", newSecret()) }},
		"no code":             {spoil: func(t *testing.T, _ *consentEnv, c string) string { return with(t, c, "code", "") }},
		"a code and an error": {spoil: func(_ *testing.T, _ *consentEnv, c string) string { return c + "&error=access_denied" }},
		"two codes":           {spoil: func(_ *testing.T, _ *consentEnv, c string) string { return c + "&code=other" }},
		"two states":          {spoil: func(_ *testing.T, _ *consentEnv, c string) string { return c + "&state=other" }},
		"a code of 100 kB": {spoil: func(t *testing.T, _ *consentEnv, c string) string {
			return with(t, c, "code", strings.Repeat("c", 100<<10))
		}},
		"a code with a line break":   {spoil: func(t *testing.T, _ *consentEnv, c string) string { return with(t, c, "code", "a\r\nb") }},
		"another integration's path": {spoil: func(_ *testing.T, _ *consentEnv, c string) string { return strings.Replace(c, "/Graph?", "/Other?", 1) }},
		"an unknown integration": {spoil: func(_ *testing.T, _ *consentEnv, c string) string {
			return strings.Replace(c, "/Graph?", "/Nobody?", 1)
		}, status: http.StatusNotFound},
		"HEAD":                        {method: http.MethodHead, status: http.StatusMethodNotAllowed},
		"POST":                        {method: http.MethodPost, status: http.StatusMethodNotAllowed},
		"no issuer where one is due":  {issuer: "https://idp.example", spent: true},
		"another issuer":              {issuer: "https://idp.example", spoil: func(t *testing.T, _ *consentEnv, c string) string { return with(t, c, "iss", "https://evil.example") }, spent: true},
		"an issuer with a slash more": {issuer: "https://idp.example", spoil: func(t *testing.T, _ *consentEnv, c string) string { return with(t, c, "iss", "https://idp.example/") }, spent: true},
		"an error of another issuer": {issuer: "https://idp.example", spoil: func(t *testing.T, _ *consentEnv, c string) string {
			return with(t, c, "code", "", "error", "access_denied", "iss", "https://evil.example")
		}, spent: true},
	} {
		t.Run(name, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{change: func(in *Integration) { in.Issuer = tc.issuer }})
			b, link := e.newBrowser(), e.link()
			callback := b.consent(link)
			spoilt, method, status := callback, http.MethodGet, http.StatusBadRequest
			if tc.spoil != nil {
				spoilt = tc.spoil(t, e, callback)
			}
			if tc.method != "" {
				method = tc.method
			}
			if tc.status != 0 {
				status = tc.status
			}

			got := b.do(method, spoilt, nil)
			require.Equal(t, status, got.status, got.body)
			require.Zero(t, e.exchanges())
			require.Nil(t, e.stored(acme))
			require.Equal(t, http.StatusOK, b.get(link).status, "the link is not spent")

			if tc.spent {
				require.Equal(t, http.StatusBadRequest, b.get(with(t, callback, "iss", tc.issuer)).status)
				require.Zero(t, e.exchanges())
				return
			}
			require.Equal(t, http.StatusSeeOther, b.get(callback).status, "the state is not spent")
			require.NotNil(t, e.stored(acme))
		})
	}
}

func TestIssuerOfTheProviderIsAccepted(t *testing.T) {
	const issuer = "https://idp.example/tenant"
	for name, configured := range map[string]string{"configured": issuer, "not configured": ""} {
		t.Run(name, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{
				provider: authflowtest.Config{Issuer: issuer},
				change:   func(in *Integration) { in.Issuer = configured },
			})
			b := e.newBrowser()
			require.Equal(t, http.StatusSeeOther, b.get(b.consent(e.link())).status)
		})
	}
}

// A link scanner or a thief in another browser neither connects nor spoils the consent of the one who began it.
func TestCallbackInAnotherBrowser(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b, link := e.newBrowser(), e.link()
	callback := b.consent(link)

	other := e.newBrowser()
	e.store.failing(unavailable("peek consent:"))
	require.Equal(t, http.StatusBadRequest, other.get(callback).status, "no cookie, and so no look at the store either")
	e.store.failing(nil)
	other.click(e.link()) // it has a cookie now, of a consent of its own
	require.Equal(t, http.StatusBadRequest, other.get(callback).status, "the cookie of another consent")
	planted := e.newBrowser()
	for _, cookie := range b.client.Jar.Cookies(mustParse(t, callback)) {
		planted.client.Jar.SetCookies(mustParse(t, callback), []*http.Cookie{{Name: cookie.Name, Value: "made-up", Path: "/"}})
	}
	require.Equal(t, http.StatusBadRequest, planted.get(callback).status, "the right name, another value")
	require.Zero(t, e.exchanges())
	require.Equal(t, 3, e.count(resultRefused))

	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
}

func TestReplayedCallbackFindsNothing(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	callback := b.consent(e.link())
	cookies := b.client.Jar.Cookies(mustParse(t, callback))
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
	grant := e.stored(acme).Grant

	require.Equal(t, http.StatusBadRequest, b.get(callback).status, "its cookie is gone")
	b.client.Jar.SetCookies(mustParse(t, callback), cookies)
	require.Equal(t, http.StatusBadRequest, b.get(callback).status, "and so is its state")
	require.Equal(t, 1, e.exchanges())
	require.Empty(t, e.provider.Reuses())
	require.Equal(t, grant, e.stored(acme).Grant)
}

func TestSimultaneousCallbacksExchangeOnce(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	callback := b.consent(e.link())
	cookies := b.client.Jar.Cookies(mustParse(t, callback))

	var mu sync.Mutex // guards statuses
	statuses := map[int]int{}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			req, _ := http.NewRequest(http.MethodGet, callback, nil) // callback is a URL
			for _, cookie := range cookies {
				req.AddCookie(cookie)
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				return // counted as missing below
			}
			_ = resp.Body.Close()
			mu.Lock()
			defer mu.Unlock()
			statuses[resp.StatusCode]++
		})
	}
	all.Wait()
	require.Equal(t, map[int]int{http.StatusSeeOther: 1, http.StatusBadRequest: 19}, statuses)
	require.Equal(t, 1, e.exchanges())
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u
}
