package e2e_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// tokenPath is where the token API has graph's tokens.
const tokenPath = "/_bifrost/v1/integrations/graph"

// sessionCookie is an operator's, on plain http.
const sessionCookie = "bifrost-session"

// TestSecretsStayInside drives all that handles secrets, at debug level, and then searches everything that bifrost has written,
// answered or stored for every one of them.
func TestSecretsStayInside(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		c := newCanaries(t, nil)
		c.drive()
		c.replica.stop()
		c.readFiles("store", c.site.dir)
		require.True(t, c.holds("store: audit.log", `"action":"connect"`))
		c.search("store: bifrost.db")
	})
	t.Run("Redis", func(t *testing.T) {
		server := storetest.StartRedis(t)
		c := newCanaries(t, server)
		c.drive()
		c.dump(server)
		c.replica.stop()
		c.search("redis: ")
	})
}

// canaries are the secrets that a site was given or has made, and the places where none of them may be.
type canaries struct {
	*replica
	secrets map[string]string // by what they are
	places  map[string]string // text by place
}

func newCanaries(t *testing.T, server *storetest.RedisServer) *canaries {
	s := newSite(t, newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime}))
	s.replace(`integrations: ["*"]}`, `integrations: ["*"], may_read_tokens: true}`)
	s.yaml += "    expose_token: true\nlog: {level: debug}\naudit: {file: " + s.dir + "/audit.log}\n"
	if server != nil {
		s.onRedis(server.URL)
	}
	c := &canaries{secrets: map[string]string{}, places: map[string]string{}}
	c.secrets["client secret"] = s.idp.ClientSecret()
	c.secrets["operator token"] = operatorToken
	c.secrets["caller key"] = callerKey
	c.secrets["encryption key"] = s.env["KEY"]
	raw, err := base64.StdEncoding.DecodeString(s.env["KEY"])
	require.NoError(t, err)
	c.secrets["encryption key, raw"] = string(raw)
	c.replica = s.start()
	return c
}

// see takes an answer down, all but the headers that have to carry secrets. Its cookies are among the secrets.
func (c *canaries) see(place string, ans answer) answer {
	for _, cookie := range (&http.Response{Header: ans.Header}).Cookies() {
		if cookie.Value != "" {
			c.secrets["cookie "+cookie.Name] = cookie.Value
		}
	}
	h := ans.Header.Clone()
	h.Del("Set-Cookie")
	h.Del("Location")
	c.places[fmt.Sprintf("answer %d: %s", len(c.places), place)] = fmt.Sprint(ans.Status, h, ans.Body)
	return ans
}

// drive does everything once, and failures after it.
func (c *canaries) drive() {
	c.signIn()
	c.consentSeen("acme")
	c.see("import", c.api(http.MethodPut, connectionPath("globex")+"/grant",
		fmt.Sprintf(`{"refresh_token":%q}`, c.site.idp.Issue("globex", "read").Refresh)))
	c.see("refresh", c.api(http.MethodPost, connectionPath("acme")+"/refresh", ""))
	c.traffic()
	c.tokens()
	c.failures()
	c.strangers()
	screen := c.request(http.MethodGet, c.auth+"/integrations", "")
	screen.AddCookie(&http.Cookie{Name: sessionCookie, Value: c.secrets["cookie "+sessionCookie]})
	require.Equal(c.t, http.StatusOK, c.see("screen", c.send(screen)).Status)
	for _, path := range []string{"/integrations", "/integrations/graph", connectionPath("acme"), connectionPath("globex")} {
		require.Equal(c.t, http.StatusOK, c.see("API", c.api(http.MethodGet, path, "")).Status)
	}
	require.Equal(c.t, http.StatusNoContent, c.see("disconnect", c.api(http.MethodDelete, connectionPath("globex"), "")).Status)
	require.NotEmpty(c.t, c.site.idp.Revocations())
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		c.see(path, c.send(c.request(http.MethodGet, c.ops+path, "")))
	}
}

// signIn opens a session on the screen, after a try with a wrong token.
func (c *canaries) signIn() {
	c.t.Helper()
	c.see("sign-in form", c.send(c.request(http.MethodGet, c.auth+"/integrations", "")))
	for token, status := range map[string]int{"CANARY-wrong-token": http.StatusUnauthorized, operatorToken: http.StatusSeeOther} {
		req := c.request(http.MethodPost, c.auth+"/integrations/sign-in", url.Values{"token": {token}}.Encode())
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		require.Equal(c.t, status, c.see("sign-in", c.send(req)).Status)
	}
}

// consentSeen takes the pages of a consent down, with the secrets on the way: the ticket stands in its own page, the state goes
// to the provider and comes back with the code, and the cookie holds them together.
func (c *canaries) consentSeen(org string) {
	c.t.Helper()
	pages := c.consent(org)
	require.Len(c.t, pages, 5, "ticket, button, provider, callback, result")
	ticket := ticketField.FindStringSubmatch(pages[0].Body)
	require.NotNil(c.t, ticket)
	c.secrets["ticket"] = ticket[1]
	back, err := url.Parse(pages[2].Header.Get("Location"))
	require.NoError(c.t, err)
	c.secrets["state"] = back.Query().Get("state")
	c.secrets["code"] = back.Query().Get("code")
	begun := (&http.Response{Header: pages[1].Header}).Cookies()
	require.Len(c.t, begun, 1)
	c.secrets["flow cookie"] = begun[0].Value
	c.secrets["PKCE verifier"] = c.site.idp.Posts()[0].Form.Get("code_verifier")
	pages[0].Body = strings.ReplaceAll(pages[0].Body, ticket[1], "")
	for _, i := range []int{0, 1, 3, 4} { // the other is the provider's
		c.see("consent", pages[i])
	}
	c.places["redirect to the result"] = pages[3].Header.Get("Location")
}

// traffic calls the upstream, with a token that it refuses too. The answers are the upstream's, which echoes the query.
func (c *canaries) traffic() {
	c.t.Helper()
	for _, org := range []string{"acme", "globex"} {
		require.Equal(c.t, http.StatusOK, c.call(org, "/graph/me?access_token=CANARY-query").Status)
	}
	killAccess(c.site.idp, "acme")
	require.Equal(c.t, http.StatusOK, c.see("replay", c.call("acme", "/graph/me")).Status)
	require.Equal(c.t, 1.0, c.metric("bifrost_upstream_replays_total"))
}

// tokens reads the access token of an org. Its answer holds that, once and as a value of its body, and no other secret.
func (c *canaries) tokens() {
	c.t.Helper()
	ans := c.call("acme", tokenPath)
	require.Equal(c.t, http.StatusOK, ans.Status, ans.Body)
	var got struct {
		OAuth struct {
			AccessToken string `json:"access_token"`
		}
	}
	require.NoError(c.t, json.Unmarshal([]byte(ans.Body), &got))
	owner, known := c.site.idp.Lookup(got.OAuth.AccessToken)
	require.True(c.t, known)
	require.Equal(c.t, "acme", owner.User)
	require.Equal(c.t, authflowtest.Access, owner.Kind)
	c.secrets["token that was read"] = got.OAuth.AccessToken
	value := fmt.Sprintf(`"access_token":%q`, got.OAuth.AccessToken)
	require.Contains(c.t, ans.Body, value)
	ans.Body = strings.Replace(ans.Body, value, "", 1)
	c.see("token", ans)
}

// failures has the provider refuse in several ways, each with a text of its own, and ends with a dead grant.
func (c *canaries) failures() {
	c.t.Helper()
	for i, b := range []authflowtest.Behaviour{
		authflowtest.Raw(http.StatusInternalServerError, "text/html", "CANARY-provider-text"),
		authflowtest.OAuthError(http.StatusTeapot, "CANARY_code"),
		authflowtest.Redirect(http.StatusFound, c.site.idp.BaseURL+"/CANARY-redirect"),
		authflowtest.Member("access_token", `["CANARY-list"]`),
		authflowtest.DropAfter(),
		authflowtest.OAuthError(http.StatusUnauthorized, "invalid_client"),
	} {
		org := fmt.Sprintf("unlucky-%d", i)
		c.adopt(org)
		c.site.idp.Misbehave(b)
		ans := c.see("refresh that fails", c.api(http.MethodPost, connectionPath(org)+"/refresh", ""))
		require.Equal(c.t, http.StatusServiceUnavailable, ans.Status, ans.Body)
	}
	ans := c.see("refused import", c.api(http.MethodPut, connectionPath("other")+"/grant", `{"refresh_token":"CANARY-unknown-refresh"}`))
	require.Equal(c.t, http.StatusUnprocessableEntity, ans.Status, ans.Body)
	c.site.idp.RevokeUser("globex")
	ans = c.see("dead grant", c.api(http.MethodPost, connectionPath("globex")+"/refresh", ""))
	require.Equal(c.t, http.StatusFailedDependency, ans.Status, ans.Body)
}

// strangers tries what must be refused.
func (c *canaries) strangers() {
	c.t.Helper()
	for _, path := range []string{"/graph/../me?CANARY-query", "/none/me?CANARY-query", "/graph/me", tokenPath + "?CANARY-query"} {
		req := c.proxied("nobody", path)
		c.see("refused", c.send(req))
		req = c.proxied("acme", path)
		req.Header.Set("Authorization", "Bearer CANARY-wrong-key")
		c.see("refused", c.send(req))
	}
	req := c.request(http.MethodGet, c.auth+"/api/v1/integrations", "")
	req.Header.Set("Authorization", "Bearer CANARY-wrong-token")
	c.see("refused", c.send(req))
	for _, path := range []string{"/oauth/callback/graph?code=CANARY-code&state=CANARY-state", "/oauth/connect/graph?ticket=CANARY-ticket"} {
		c.see("refused", c.send(c.request(http.MethodGet, c.auth+path, "")))
	}
}

// readFiles takes down every file below dir but the configuration.
func (c *canaries) readFiles(what, dir string) {
	c.t.Helper()
	require.NoError(c.t, filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) == ".yaml" {
			return err
		}
		content, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name) // name is below dir
		c.places[what+": "+rel] = string(content)
		return err
	}))
}

// dump takes down every key and value of a Redis, and its append-only file: all that was ever written to it.
func (c *canaries) dump(server *storetest.RedisServer) {
	c.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	keys, err := client.Keys(c.t.Context(), "*").Result()
	require.NoError(c.t, err)
	for _, key := range keys {
		value, err := client.Dump(c.t.Context(), key).Result()
		if err != redis.Nil { // it has just expired
			require.NoError(c.t, err)
		}
		c.places["redis: "+key] = key + value
	}
	dir, err := client.ConfigGet(c.t.Context(), "dir").Result()
	require.NoError(c.t, err)
	c.readFiles("redis file", dir["dir"])
	require.True(c.t, c.holds("redis file: ", "bifrost:{"), "the append-only file was not looked at")
}

// holds reports whether a place whose name begins so has that text.
func (c *canaries) holds(place, text string) bool {
	for name, content := range c.places {
		if strings.HasPrefix(name, place) && strings.Contains(content, text) {
			return true
		}
	}
	return false
}

// search looks for every secret in every place. Before that it proves that it would find each, and that there is something to
// look at: stored begins the names of the store's places.
func (c *canaries) search(stored string) {
	c.t.Helper()
	c.places["stderr"] = c.stderr.String()
	require.Contains(c.t, c.places["stderr"], `"level":"DEBUG"`)
	require.Contains(c.t, c.places["stderr"], `"msg":"request"`)
	require.True(c.t, c.holds(stored, ""), "the store was not looked at")

	c.secrets["any canary"] = "CANARY" // tokens that were never used, texts of the provider, what strangers sent
	for _, seen := range c.site.idp.Sightings() {
		c.secrets["access token "+seen.Value] = seen.Value
	}
	for token := range c.site.idp.Refreshes() {
		c.secrets["refresh token "+token] = token
	}
	for _, what := range []string{"ticket", "state", "code", "PKCE verifier", "cookie " + sessionCookie, "flow cookie"} {
		require.Contains(c.t, c.secrets, what)
	}
	for what, secret := range c.secrets {
		require.GreaterOrEqual(c.t, len(secret), len("CANARY"), what)
		for _, form := range forms(secret) {
			planted := map[string]string{"planted": "before " + form + " after"}
			require.NotEmpty(c.t, leaks(planted, map[string]string{what: secret}), "the search is blind")
		}
	}
	require.Empty(c.t, leaks(c.places, c.secrets))
}

// leaks says which secret is in which place, as it is or encoded.
func leaks(places, secrets map[string]string) []string {
	var found []string
	for place, text := range places {
		for what, secret := range secrets {
			if slices.ContainsFunc(forms(secret), func(form string) bool { return strings.Contains(text, form) }) {
				found = append(found, what+" in "+place)
			}
		}
	}
	return found
}

// forms are a secret and its encodings. Of base64 the first bytes tell, whatever follows the secret.
func forms(secret string) []string {
	whole := secret[:len(secret)/3*3]
	return []string{
		secret, url.QueryEscape(secret), hex.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte(whole)), base64.URLEncoding.EncodeToString([]byte(whole)),
	}
}
