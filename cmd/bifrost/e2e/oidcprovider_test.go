package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	certifiedLife = 5 // seconds that the certified server's access tokens live
	refreshLimit  = 55 * time.Second
)

// certified is a bifrost in front of an API that asks the certified OAuth server about every token that it is shown.
type certified struct {
	*replica
	script *script
	api    *introspecting
}

// certifiedClient is one client of the certified server, and the integration that uses it.
type certifiedClient struct{ integration, auth, issuer string }

// newCertified starts the certified server, the API and bifrost with one integration for each client.
func newCertified(t *testing.T, clients ...certifiedClient) *certified {
	t.Helper()
	server := startScript(t, "oidc-provider.mjs", map[string]any{"lifetime": certifiedLife})
	issuer := server.await(t, "its address", patience, named("listening")).text("issuer")
	var endpoints struct {
		Issuer        string
		Authorization string `json:"authorization_endpoint"`
		Token         string `json:"token_endpoint"`
		Revocation    string `json:"revocation_endpoint"`
		Introspection string `json:"introspection_endpoint"`
		IssInCallback bool   `json:"authorization_response_iss_parameter_supported"`
	}
	getJSON(t, issuer+"/.well-known/openid-configuration", &endpoints)
	require.Equal(t, issuer, endpoints.Issuer)
	require.True(t, endpoints.IssInCallback)

	api := newIntrospecting(t, endpoints.Introspection)
	s := &site{t: t, dir: t.TempDir(), binary: built.plain, env: map[string]string{
		"OPERATOR": operatorToken, "CALLER": callerKey, "SECRET": "CANARY-client-secret",
	}}
	s.yaml = `
proxy: {listen: PROXY}
auth:
  listen: AUTH
  operators:
    - {name: ops, token: {env: OPERATOR}}
ops: {listen: OPS}
store: {file: "` + s.dir + `/bifrost.db"}
callers:
  - {name: workflows, key: {env: CALLER}, orgs: ["*"], integrations: ["*"]}
integrations:
`
	for _, c := range clients {
		s.yaml += strings.NewReplacer("NAME", c.integration, "METHOD", c.auth, "API", api.URL, "ISSUER", either(c.issuer, endpoints.Issuer),
			"AUTHORIZE", endpoints.Authorization, "TOKEN", endpoints.Token, "REVOKE", endpoints.Revocation).Replace(`
  NAME:
    route: /NAME
    upstream: API/NAME
    client_id: NAME-client
    client_secret: {env: SECRET}
    client_auth: METHOD
    issuer: ISSUER
    authorization_url: AUTHORIZE
    token_url: TOKEN
    revocation_url: REVOKE
    scopes: openid offline_access
    authorization_params: {prompt: consent}
    refresh_tokens: one_time
`)
	}
	c := &certified{s.start(), server, api}
	for _, client := range append(clients, certifiedClient{integration: "api", auth: "basic"}) {
		server.send(t, map[string]any{"register": map[string]string{
			"id": client.integration + "-client", "secret": s.env["SECRET"], "auth": "client_secret_" + client.auth,
			"redirect_uri": c.auth + "/oauth/callback/" + client.integration,
		}})
		server.await(t, "that it knows "+client.integration, patience, of(client.integration, "registered"))
	}
	return c
}

// TestACertifiedServerThatRotatesRefreshTokens connects at a server that revokes a grant if a refresh token comes twice, lets
// both kinds of client refresh ten times, and revokes one of the grants there and one here.
func TestACertifiedServerThatRotatesRefreshTokens(t *testing.T) {
	t.Parallel()
	c := newCertified(t, certifiedClient{integration: "basic", auth: "basic"}, certifiedClient{integration: "post", auth: "post"})
	for _, integration := range []string{"basic", "post"} {
		page := c.connect(t, integration)
		require.Equal(t, http.StatusOK, page.Status, page.Body)
		require.Contains(t, page.Body, integration+" is connected")
		ans := c.call("acme", "/"+integration+"/me")
		require.Equal(t, http.StatusOK, ans.Status, ans.Body)
		require.JSONEq(t, `{"sub":"alice"}`, ans.Body)
		require.Equal(t, "active", c.connection(t, integration).Status)
	}

	const refreshes = 10
	require.Eventually(t, func() bool {
		for _, integration := range []string{"basic", "post"} {
			if ans := c.call("acme", "/"+integration+"/me"); ans.Status != http.StatusOK {
				t.Errorf("%s: %d %s", integration, ans.Status, ans.Body)
				return true
			}
		}
		return c.api.tokens("basic") > refreshes && c.api.tokens("post") > refreshes
	}, refreshLimit, 50*time.Millisecond, "not refreshed %d times", refreshes)
	require.False(t, t.Failed(), "every call must succeed")
	require.Zero(t, c.api.refused(), "no call may need a second attempt")
	for _, integration := range []string{"basic", "post"} {
		used := c.refreshTokens(integration)
		require.GreaterOrEqual(t, len(used), refreshes)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(used))), len(used), "a refresh token was used twice: %v", used)
	}
	require.Empty(t, c.script.told(named("grant.error")))
	require.Empty(t, c.script.told(named("grant.revoked")))

	c.script.send(t, map[string]string{"revoke": "post-client"})
	c.script.await(t, "that it has revoked the grant", patience, of("post", "revoked"))
	var last answer // the server's own 401 until the token runs out: it judges tokens by their grant
	require.Eventually(t, func() bool {
		last = c.call("acme", "/post/me")
		return last.Header.Get("X-Bifrost-Error") != ""
	}, patience, 50*time.Millisecond, "the last token must run out")
	require.Equal(t, http.StatusFailedDependency, last.Status, last.Body)
	require.Equal(t, "needs_reconnect", last.Header.Get("X-Bifrost-Error"))
	broken := c.connection(t, "post")
	require.Equal(t, "needs_reconnect", broken.Status)
	require.Equal(t, "invalid_grant", broken.LastError.Code)
	require.Len(t, c.script.told(of("post", "grant.error")), 1, "a refused refresh token is not sent again")
	require.Equal(t, "active", c.connection(t, "basic").Status)

	ans := c.replica.api(http.MethodDelete, "/integrations/basic/connections/acme", "")
	require.Equal(t, http.StatusNoContent, ans.Status, ans.Body)
	c.script.await(t, "that bifrost revoked the grant", patience, of("basic", "grant.revoked"))
	require.Equal(t, "not_connected", c.connection(t, "basic").Status)
	require.Empty(t, c.script.told(named("error")))
}

// TestACertifiedServerThatIsNotTheConfiguredIssuer sends another iss to the callback than the integration expects.
func TestACertifiedServerThatIsNotTheConfiguredIssuer(t *testing.T) {
	t.Parallel()
	c := newCertified(t, certifiedClient{"mixedup", "basic", "http://127.0.0.1:1/another"})
	page := c.connect(t, "mixedup")
	require.Equal(t, http.StatusBadRequest, page.Status, page.Body)
	require.Empty(t, c.script.told(of("mixedup", "grant.success", "grant.error")), "nothing may be exchanged")
	require.Equal(t, "not_connected", c.connection(t, "mixedup").Status)
	require.Equal(t, "not_connected", c.call("acme", "/mixedup/me").Header.Get("X-Bifrost-Error"))
}

var ticketField = regexp.MustCompile(`name="ticket" value="([^"]+)"`)

// connect opens a connect link for acme in a new browser and follows it through the server's sign-in and consent to its end.
func (c *certified) connect(t *testing.T, integration string) answer {
	t.Helper()
	ans := c.replica.api(http.MethodPost, "/integrations/"+integration+"/connections/acme/connect-link", `{}`)
	require.Equal(t, http.StatusOK, ans.Status, ans.Body)
	var link struct{ URL string }
	require.NoError(t, json.Unmarshal([]byte(ans.Body), &link))

	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: patience}
	page := read(t)(browser.Get(link.URL))
	require.Equal(t, http.StatusOK, page.Status, page.Body)
	ticket := ticketField.FindStringSubmatch(page.Body)
	require.NotNil(t, ticket, page.Body)
	return read(t)(browser.PostForm(link.URL, url.Values{"ticket": ticket[1:]}))
}

// connection returns acme's connection as the JSON API tells it.
func (c *certified) connection(t *testing.T, integration string) (connection struct {
	Status    string
	LastError struct{ Code string } `json:"last_error"`
}) {
	t.Helper()
	ans := c.replica.api(http.MethodGet, "/integrations/"+integration+"/connections/acme", "")
	require.Equal(t, http.StatusOK, ans.Status, ans.Body)
	require.NoError(t, json.Unmarshal([]byte(ans.Body), &connection))
	return connection
}

// refreshTokens returns the refresh tokens that the server has accepted, hashed.
func (c *certified) refreshTokens(integration string) []string {
	var used []string
	for _, e := range c.script.told(of(integration, "grant.success")) {
		if e.text("grant_type") == "refresh_token" {
			used = append(used, e.text("refresh_token"))
		}
	}
	return used
}

// introspecting is an API that asks the server about each token (RFC 7662) and answers with its subject.
type introspecting struct {
	*httptest.Server

	mu   sync.Mutex                 // guards the fields below
	seen map[string]map[string]bool // by integration: its tokens
	bad  int
}

func newIntrospecting(t *testing.T, endpoint string) *introspecting {
	api := &introspecting{seen: map[string]map[string]bool{}}
	api.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, endpoint, strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			panic(err) // the endpoint is the server's own
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("api-client", "CANARY-client-secret")
		var about struct {
			Active bool
			Sub    string
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&about)
			_ = resp.Body.Close() // it is read
		}
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		integration, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if !api.note(integration, token, about.Active) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"sub": about.Sub}) // bifrost may have gone
	}))
	t.Cleanup(api.Close)
	return api
}

func (api *introspecting) note(integration, token string, active bool) bool {
	api.mu.Lock()
	defer api.mu.Unlock()
	if !active {
		api.bad++
		return false
	}
	if api.seen[integration] == nil {
		api.seen[integration] = map[string]bool{}
	}
	api.seen[integration][token] = true
	return true
}

// tokens returns how many good tokens the API has seen.
func (api *introspecting) tokens(integration string) int {
	api.mu.Lock()
	defer api.mu.Unlock()
	return len(api.seen[integration])
}

// refused returns how many calls came with a token that is not good.
func (api *introspecting) refused() int {
	api.mu.Lock()
	defer api.mu.Unlock()
	return api.bad
}

// named matches events by their name.
func named(name string) func(event) bool {
	return func(e event) bool { return e.text("event") == name }
}

// of matches the events of an integration's client, all or those of some names.
func of(integration string, names ...string) func(event) bool {
	return func(e event) bool {
		return e.text("client") == integration+"-client" && (len(names) == 0 || slices.Contains(names, e.text("event")))
	}
}

func either(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// read returns what reads an answer to its end: read(t)(client.Get(url)).
func read(t *testing.T) func(*http.Response, error) answer {
	t.Helper()
	return func(resp *http.Response, err error) answer {
		t.Helper()
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return answer{resp.StatusCode, resp.Header, string(body)}
	}
}

func getJSON(t *testing.T, address string, into any) {
	t.Helper()
	ans := read(t)(http.Get(address))
	require.Equal(t, http.StatusOK, ans.Status, ans.Body)
	require.NoError(t, json.Unmarshal([]byte(ans.Body), into))
}
