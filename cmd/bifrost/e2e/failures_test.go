package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// brief is how long the tokens live that are to run out.
const brief = time.Second

// failing is a site at which everything that can fail can be made to.
type failing struct {
	*replica
	other                     *replica // the connections were made here, so that r has nothing in memory
	redis                     *storetest.RedisServer
	idp, slow, broken, strict *authflowtest.Provider
	hits                      atomic.Int64 // requests at the upstream
}

func newFailing(t *testing.T) *failing {
	f := &failing{redis: storetest.StartRedis(t)}
	f.idp = newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	f.slow = newProvider(t, authflowtest.Config{Lifetime: brief})
	f.broken = newProvider(t, authflowtest.Config{Lifetime: brief})
	f.strict = newProvider(t, authflowtest.Config{Lifetime: brief})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.hits.Add(1)
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
			return
		}
		_, _ = w.Write([]byte(`{}`)) // the client may have gone
	}))
	t.Cleanup(upstream.Close)

	s := newSite(t, f.idp)
	s.onRedis(f.redis.URL)
	s.replace("upstream: "+f.idp.BaseURL+"/api", "upstream: "+upstream.URL)
	s.env["BOUND"] = "CANARY-bound-key"
	s.replace("integrations:\n", `  - {name: bound, key: {env: BOUND}, orgs: [acme], integrations: [graph]}`+"\nintegrations:\n")
	add := func(name string, idp *authflowtest.Provider, upstream, more string) {
		s.yaml += strings.NewReplacer("NAME", name, "IDP", idp.BaseURL, "UPSTREAM", upstream).Replace(`
  NAME:
    route: /NAME
    upstream: UPSTREAM
    client_id: client-1
    client_secret: {env: SECRET}
    authorization_url: IDP/authorize
    token_url: IDP/token
`) + more
	}
	add("limited", f.idp, upstream.URL, "    methods: [GET, POST]\n    max_body: 10\n    fallback: none\n")
	add("slow", f.slow, upstream.URL, "    timeouts: {token: 30s}\n")
	add("broken", f.broken, upstream.URL, "")
	add("strict", f.strict, upstream.URL, "")
	add("gone", f.idp, "http://"+storetest.FreeAddr(t), "")
	add("hanging", f.idp, upstream.URL, "    timeouts: {response_header: 300ms}\n")
	f.other, f.replica = s.start(), s.start()
	f.breakAll(t)
	return f
}

// breakAll makes connections and then what is to fail, and waits until the brief tokens have run out.
func (f *failing) breakAll(t *testing.T) {
	f.idp.SetLifetime(brief)
	f.other.adopt("dead")
	f.idp.SetLifetime(time.Hour)
	for _, org := range []string{"acme", "garbled", "@global"} {
		f.other.adopt(org)
	}
	for _, name := range []string{"limited", "gone", "hanging"} {
		f.other.adoptAt(name, f.idp, "acme")
	}
	f.slow.MisbehaveAlways(authflowtest.Behaviour{When: renewals(), HoldBefore: authflowtest.NewGate()})
	f.broken.MisbehaveAlways(authflowtest.Behaviour{When: renewals(), Instead: authflowtest.HTML(http.StatusBadGateway).Instead})
	f.strict.MisbehaveAlways(authflowtest.Behaviour{When: renewals(), Instead: authflowtest.OAuthError(401, "invalid_client").Instead})
	f.other.adoptAt("slow", f.slow, "acme")
	f.other.adoptAt("broken", f.broken, "acme")
	f.other.adoptAt("strict", f.strict, "acme")
	f.idp.RevokeUser("dead")
	garble(t, f.redis.Addr, "garbled")
	expired := time.Now().Add(brief)
	require.Eventually(t, func() bool { return time.Now().After(expired) }, patience, pollTime)
}

// renewals matches every refresh of a grant but its first one, which is the import.
func renewals() func(authflowtest.Post) bool {
	var posts atomic.Int64
	return func(authflowtest.Post) bool { return posts.Add(1) > 1 }
}

// garble overwrites what is sealed of an org's record.
func garble(t *testing.T, addr, org string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	keys, err := client.Keys(t.Context(), "bifrost:*:r:*."+base64.RawURLEncoding.EncodeToString([]byte(org))).Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.NoError(t, client.HSet(t.Context(), keys[0], "b", "garbled").Err())
}

// TestFailures drives every failure that the proxy makes itself and checks all that a caller can rely on.
func TestFailures(t *testing.T) {
	t.Parallel()
	f := newFailing(t)
	get := func(org, path string) func() *http.Request {
		return func() *http.Request { return f.proxied(org, path) }
	}
	with := func(req func() *http.Request, change func(*http.Request)) func() *http.Request {
		return func() *http.Request {
			r := req()
			change(r)
			return r
		}
	}
	header := func(req func() *http.Request, name string, values ...string) func() *http.Request {
		return with(req, func(r *http.Request) {
			r.Header.Del(name)
			for _, v := range values {
				r.Header.Add(name, v)
			}
		})
	}
	method := func(req func() *http.Request, name string) func() *http.Request {
		return with(req, func(r *http.Request) { r.Method = name })
	}
	acme := get("acme", "/graph/me")
	for _, c := range []struct {
		name    string
		request func() *http.Request
		status  int
		code    string
		reaches bool   // the upstream is asked, and does not answer
		before  func() // breaks what the earlier cases need
	}{
		{name: "no integration has the route", request: get("acme", "/other/me"), status: 404, code: "unknown_route"},
		{name: "another route begins alike", request: get("acme", "/graphs"), status: 404, code: "unknown_route"},
		{name: "the ops listener's path", request: get("acme", "/metrics"), status: 404, code: "unknown_route"},
		{name: "dot segments", request: get("acme", "/graph/../me"), status: 400, code: "bad_request"},
		{name: "dot segments, encoded twice", request: get("acme", "/graph/%252e%252e/me"), status: 400, code: "bad_request"},
		{name: "a protocol to upgrade to", request: header(header(acme, "Upgrade", "h2c"), "Connection", "Upgrade"), status: 400, code: "bad_request"},
		{name: "TRACE", request: method(acme, http.MethodTrace), status: 405, code: "method_not_allowed"},
		{name: "a method outside the list", request: method(get("acme", "/limited/me"), http.MethodDelete), status: 405, code: "method_not_allowed"},
		{name: "no org", request: get("", "/graph/me"), status: 400, code: "org_required"},
		{name: "a malformed org", request: get("acme/globex", "/graph/me"), status: 400, code: "org_invalid"},
		{name: "the global connection's own name", request: get("@global", "/graph/me"), status: 400, code: "org_invalid"},
		{name: "two orgs", request: header(acme, "X-Org-ID", "acme", "globex"), status: 400, code: "org_invalid"},
		{name: "an org and global", request: header(acme, "X-Org-Scope", "global"), status: 400, code: "org_invalid"},
		{name: "no key", request: header(acme, "Authorization"), status: 401, code: "caller_unauthenticated"},
		{name: "a wrong key", request: header(acme, "Authorization", "Bearer CANARY-wrong-key"), status: 401, code: "caller_unauthenticated"},
		{name: "another's org", request: header(get("globex", "/graph/me"), "Authorization", "Bearer CANARY-bound-key"), status: 403, code: "caller_forbidden"},
		{name: "another's integration", request: header(get("acme", "/limited/me"), "Authorization", "Bearer CANARY-bound-key"), status: 403, code: "caller_forbidden"},
		{name: "global without the right", request: header(with(acme, func(r *http.Request) {
			r.Header.Del("X-Org-ID")
			r.Header.Set("X-Org-Scope", "global")
		}), "Authorization", "Bearer CANARY-bound-key"), status: 403, code: "caller_forbidden"},
		{name: "a body over the limit", request: func() *http.Request {
			r := f.request(http.MethodPost, f.proxy+"/limited/me", "12345678901")
			r.Header = acme().Header
			return r
		}, status: 413, code: "body_too_large"},
		{name: "nobody connected, and no fallback", request: get("globex", "/limited/me"), status: 424, code: "not_connected"},
		{name: "nobody connected, and nothing to fall back to", request: get("globex", "/gone/me"), status: 424, code: "not_connected"},
		{name: "a dead grant never falls back to global", request: get("dead", "/graph/me"), status: 424, code: "needs_reconnect"},
		{name: "a refresh that goes on", request: get("acme", "/slow/me"), status: 503, code: "refresh_pending"},
		{name: "a token endpoint that fails", request: get("acme", "/broken/me"), status: 503, code: "idp_unavailable"},
		{name: "a token endpoint that refuses the client", request: get("acme", "/strict/me"), status: 503, code: "idp_rejected_client"},
		{name: "a garbled record never falls back to global", request: get("garbled", "/graph/me"), status: 503, code: "record_unreadable"},
		{name: "nobody listens", request: get("acme", "/gone/me"), status: 502, code: "upstream_unreachable"},
		{name: "no answer", request: get("acme", "/hanging/hang"), status: 504, code: "upstream_timeout", reaches: true},
		{name: "no store, and nothing in memory", request: get("unheard-of", "/graph/me"), status: 503, code: "store_unavailable", before: f.redis.Stop},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before()
			}
			hits, req := f.hits.Load(), c.request()
			req.Header.Set("X-Request-ID", "request-1")
			ans := f.send(req)
			require.Equal(t, c.status, ans.Status, ans.Body)
			require.Equal(t, []string{c.code}, ans.Header.Values("X-Bifrost-Error"))
			require.Equal(t, []string{"application/problem+json"}, ans.Header.Values("Content-Type"))
			require.Equal(t, []string{"no-store"}, ans.Header.Values("Cache-Control"))
			credential := c.status == http.StatusBadGateway || c.status == http.StatusGatewayTimeout
			require.Equal(t, credential, ans.Header.Get("X-Bifrost-Connection") == "org", "whose credential was used, if one was")
			checkRetryAfter(t, ans)
			checkProblem(t, ans, c.code)
			if c.reaches {
				hits++
			}
			require.Equal(t, hits, f.hits.Load(), "the upstream was touched, or not")
		})
	}
}

// failureBody is the body of a failure (RFC 9457).
type failureBody struct {
	Type, Title, Detail, Code string
	Status                    int
	Retryable                 *bool
	RequestID                 string `json:"request_id"`
}

func checkProblem(t *testing.T, ans answer, code string) {
	t.Helper()
	var p failureBody
	require.NoError(t, json.Unmarshal([]byte(ans.Body), &p), ans.Body)
	require.Equal(t, code, p.Code)
	require.Equal(t, ans.Status, p.Status)
	require.Equal(t, "request-1", p.RequestID)
	require.NotNil(t, p.Retryable)
	require.NotEmpty(t, p.Type)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
}

// checkRetryAfter wants whole seconds on every 503 and 429, and nothing on the others.
func checkRetryAfter(t *testing.T, ans answer) {
	t.Helper()
	values := ans.Header.Values("Retry-After")
	if ans.Status != http.StatusServiceUnavailable && ans.Status != http.StatusTooManyRequests {
		require.Empty(t, values)
		return
	}
	require.Len(t, values, 1)
	seconds, err := strconv.Atoi(values[0])
	require.NoError(t, err)
	require.Positive(t, seconds)
}

// TestWhoFallsBackToGlobal tells an org that never connected from one whose connection is broken, with a global one at hand.
func TestWhoFallsBackToGlobal(t *testing.T) {
	t.Parallel()
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: brief})
	r := newSite(t, idp).start()
	r.adopt("broken")
	idp.SetLifetime(time.Hour)
	r.adopt("acme")
	r.adopt("@global")
	idp.RevokeUser("broken")

	expect := func(org, connection, user string) {
		ans := r.call(org, "/graph/me")
		require.Equal(t, http.StatusOK, ans.Status, ans.Body)
		require.Equal(t, connection, ans.Header.Get("X-Bifrost-Connection"))
		require.Contains(t, ans.Body, fmt.Sprintf(`"user":%q`, user))
	}
	expect("acme", "org", "acme")
	expect("never-connected", "global", "@global")
	require.Eventually(t, func() bool {
		return outcome(r.try(r.proxied("broken", "/graph/me"))) == "424 needs_reconnect"
	}, patience, pollTime, "at the latest when its last token has run out")
	require.Equal(t, "needs_reconnect", r.status("broken"))

	seen := len(idp.Sightings())
	for range 20 {
		require.Equal(t, "424 needs_reconnect", outcome(r.try(r.proxied("broken", "/graph/me"))))
	}
	require.Len(t, idp.Sightings(), seen, "the upstream was touched")
	require.Equal(t, http.StatusNoContent, r.api(http.MethodDelete, connectionPath("broken"), "").Status)
	expect("broken", "global", "@global")
}
