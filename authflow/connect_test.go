package authflow

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestConnectPageShowsWhatWillBeConnected(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	page := e.newBrowser().get(e.link())

	require.Equal(t, http.StatusOK, page.status)
	provider, err := url.Parse(e.provider.AuthorizationURL)
	require.NoError(t, err)
	for _, text := range []string{"Graph", "The <users> API", "acme", "offline_access", "Users.Read", provider.Host} {
		require.Contains(t, page.body, text)
	}
	require.Contains(t, page.header.Get("Content-Security-Policy"), "form-action 'self' http://"+provider.Host)
	require.NotContains(t, page.body, "CANARY")
}

func TestConnectPageNamesTheGlobalConnection(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link, err := e.broker.ConnectLink(t.Context(), tokenstore.Slot{Integration: "Graph", Org: tokenstore.Global}, "ops", 0)
	require.NoError(t, err)
	require.Contains(t, e.newBrowser().get(link.URL).body, `<span class="badge global">global</span>`)
}

func TestOpeningALinkSpendsNothing(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link, scanner, b := e.link(), e.newBrowser(), e.newBrowser()
	for range 3 {
		require.Equal(t, http.StatusOK, scanner.get(link).status)
		require.Equal(t, http.StatusOK, scanner.do(http.MethodHead, link, nil).status)
	}
	require.False(t, e.pending(), "nobody has begun")

	require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status)
	require.NotNil(t, e.stored(acme))
}

func TestConnectRefuses(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.link()
	soon, err := e.broker.ConnectLink(t.Context(), acme, "ops", time.Nanosecond)
	require.NoError(t, err)
	b := e.newBrowser()
	for name, tc := range map[string]struct {
		target string
		status int
	}{
		"an unknown integration":           {e.public + "/oauth/connect/Nobody?ticket=x", http.StatusNotFound},
		"an unknown path":                  {e.public + "/oauth/elsewhere", http.StatusNotFound},
		"a path that the mux would clean":  {e.public + "/oauth//connect/Graph", http.StatusNotFound},
		"no ticket":                        {e.public + "/oauth/connect/Graph", http.StatusForbidden},
		"a made-up ticket":                 {e.public + "/oauth/connect/Graph?ticket=" + newSecret(), http.StatusForbidden},
		"an expired ticket":                {soon.URL, http.StatusForbidden},
		"a ticket for another integration": {strings.Replace(link, "/Graph", "/Other", 1), http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.status, b.get(tc.target).status)
			posted := b.do(http.MethodPost, tc.target, nil)
			require.Equal(t, tc.status, posted.status)
			require.Empty(t, posted.header.Get("Set-Cookie"))
		})
	}
	put := b.do(http.MethodPut, link, nil)
	require.Equal(t, http.StatusMethodNotAllowed, put.status)
	require.Equal(t, "GET, HEAD, POST", put.header.Get("Allow"))
	require.False(t, e.pending())
}

func TestConnectRefusesCrossSiteForms(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.link()
	at, err := url.Parse(link)
	require.NoError(t, err)
	inForm, bare := url.Values{"ticket": {at.Query().Get("ticket")}}, strings.Split(link, "?")[0]
	for name, tc := range map[string]struct {
		target string
		form   url.Values
		header []string
		status int
	}{
		"cross-site":                            {bare, inForm, []string{"Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"}, http.StatusForbidden},
		"cross-site that hides its origin":      {bare, inForm, []string{"Sec-Fetch-Site", "cross-site", "Origin", "null"}, http.StatusForbidden},
		"a sibling site":                        {bare, inForm, []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		"another origin, in an old browser":     {bare, inForm, []string{"Origin", "https://evil.example"}, http.StatusForbidden},
		"a hidden origin without a form token":  {link, nil, []string{"Origin", "null"}, http.StatusForbidden},
		"our page, in an old browser":           {bare, inForm, []string{"Origin", "null"}, http.StatusSeeOther},
		"our page":                              {bare, inForm, []string{"Sec-Fetch-Site", "same-origin", "Origin", "null"}, http.StatusSeeOther},
		"not a browser, ticket in the form":     {bare, inForm, nil, http.StatusSeeOther},
		"not a browser, ticket left in the URL": {link, nil, nil, http.StatusSeeOther},
	} {
		t.Run(name, func(t *testing.T) {
			got := e.newBrowser().do(http.MethodPost, tc.target, tc.form, tc.header...)
			require.Equal(t, tc.status, got.status)
			require.Equal(t, tc.status == http.StatusSeeOther, got.header.Get("Set-Cookie") != "")
		})
	}
}

func TestConnectNamesThePlaceholderWithoutValue(t *testing.T) {
	e := newConsentEnv(t, consentSetup{change: func(in *Integration) {
		in.Resolve = func(tokenstore.Org) (Endpoints, error) {
			return Endpoints{}, errors.New("authorization_url: {vars.region} has no value")
		}
	}})
	b, link := e.newBrowser(), e.link()
	for _, got := range []seen{b.get(link), b.do(http.MethodPost, link, nil)} {
		require.Equal(t, http.StatusBadRequest, got.status)
		require.Contains(t, got.body, "{vars.region}")
		require.Empty(t, got.header.Get("Set-Cookie"))
	}
	require.False(t, e.pending())
}

func TestClientCredentialsNeedNoConsent(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.link()
	e.graph.Flow = ClientCredentials // by a reload
	require.NoError(t, e.broker.SetIntegrations([]*Integration{e.graph}))

	require.Equal(t, http.StatusBadRequest, e.newBrowser().get(link).status)
	require.Equal(t, http.StatusBadRequest, e.newBrowser().do(http.MethodPost, link, nil).status)
	_, err := e.broker.ConnectLink(t.Context(), acme, "ops", 0)
	require.ErrorIs(t, err, ErrBadLink)
}

func TestConnectWithTheStoreDown(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.link()
	for _, failing := range []string{"peek ticket:", "put consent:", "put pending:"} {
		e.store.failing(unavailable(failing))
		got := e.newBrowser().do(http.MethodPost, link, nil)
		require.Equal(t, http.StatusServiceUnavailable, got.status, failing)
		require.NotEmpty(t, got.header.Get("Retry-After"))
		require.Empty(t, got.location)
		require.Empty(t, got.header.Get("Set-Cookie"))
	}
}
