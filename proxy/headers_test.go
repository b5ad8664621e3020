package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestRequestHeadersThatStayHere(t *testing.T) {
	b := start(t, nil, func(b *bench, _ *Config, r *Route) {
		r.Target = func(tokenstore.Org) (Target, error) {
			return Target{BaseURL: b.upstream.URL, Headers: map[string]string{"x-tenant": "ours"}}, nil
		}
	})
	for _, name := range []string{
		"X-Bifrost-Key2", "X-Bifrost-Anything", "X_Bifrost_Key", "x.bifrost.key", "X-Bifrost_Key", "X-Org-Name", "X_Org_ID", "X.Org.ID", "x_org-scope",
		"Cookie", "Proxy-Authorization", "Proxy-Foo", "proxy_connection", "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Prefix",
		"X_Forwarded_Proto", "X-Real-IP", "X.Real.IP", "X-Original-URL", "X-Original-Method", "X-Rewrite-URL", "X-HTTP-Method-Override", "X_HTTP_Method_Override",
		"X-Method-Override", "X-HTTP-Method", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "Origin", "Referer", "Sec-Fetch-Mode", "Sec-WebSocket-Key",
		"Te", "Trailer", "Keep-Alive", "HTTP2-Settings", "Transfer_Encoding", "Content.Length", "X_Tenant", "X-Named-Hop", "Tracestate", "Traceparent",
	} {
		res := b.raw(t, line("GET", "/graph/x", "Connection: X-Named-Hop, Authorization, X-Tenant, X-Request-Id", name+": CANARY-theirs"))
		require.Equal(t, 200, res.StatusCode, name)
		got := b.last(t)
		for header, values := range got.Header {
			require.NotContains(t, strings.Join(values, ","), "CANARY-theirs", "%s came through as %s", name, header)
		}
		require.Equal(t, []string{tokenOf("acme")}, got.Header["Authorization"], name)
		require.Equal(t, []string{"ours"}, got.Header["X-Tenant"], name)
		require.Empty(t, got.Trailer)
	}
}

func TestRequestHeadersThatPass(t *testing.T) {
	b := start(t, nil)
	lines := []string{
		"Accept: */*", "Accept-Language: de", "Content-Type: text/plain", "Range: bytes=0-1", "If-None-Match: \"x\"", "Prefer: odata.maxpagesize=5",
		"ConsistencyLevel: eventual", "X-GitHub-Api-Version: 2022-11-28", "Idempotency-Key: 7", "X-Organization: o", "X-Orga-Id: o", "Accept-Encoding: br",
		"Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate: a=b",
	}
	b.raw(t, line("GET", "/graph/x", lines...))
	got := b.last(t)
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		require.Equal(t, []string{value}, got.Header.Values(name), name)
		got.Header.Del(name)
	}
	got.Header.Del("Authorization")
	got.Header.Del("X-Request-Id")
	require.Empty(t, got.Header, "nothing is added")
}

func TestATraceThatTheCallerKeepsToItselfGoesNoFurther(t *testing.T) {
	b := start(t, nil)
	b.raw(t, line("GET", "/graph/x", "Connection: traceparent, tracestate", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Tracestate: a=b"))
	require.NotContains(t, b.last(t).Header, "Traceparent")
	require.NotContains(t, b.last(t).Header, "Tracestate")
}

func TestTheCredentialHeaderIsTheConfiguredOneAlone(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) { r.Header = "x-api-key" }))
	b.raw(t, line("GET", "/graph/x", "X-Api-Key: CANARY-theirs", "X_Api_Key: CANARY-theirs", "Authorization: Basic CANARY"))
	got := b.last(t)
	require.Equal(t, []string{tokenOf("acme")}, got.Header["X-Api-Key"])
	require.NotContains(t, got.Header, "X_api_key")
	require.NotContains(t, got.Header, "Authorization")
}

func TestRequestIDs(t *testing.T) {
	b := start(t, nil)
	res := b.raw(t, line("GET", "/graph/x", "X-Request-ID: job-7_a.b"))
	require.Equal(t, "job-7_a.b", res.Header.Get("X-Request-Id"))
	require.Equal(t, "job-7_a.b", b.last(t).Header.Get("X-Request-Id"))
	for _, bad := range []string{"a b", "", "é", strings.Repeat("a", 129), "a\"b"} {
		res = b.raw(t, line("GET", "/graph/x", "X-Request-ID: "+bad))
		id := res.Header.Get("X-Request-Id")
		require.Regexp(t, "^[A-Z2-7]{26}$", id)
		require.Equal(t, id, b.last(t).Header.Get("X-Request-Id"))
	}
}

func TestTraceparentForms(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for value, valid := range map[string]bool{
		good:                      true,
		"01" + good[2:] + "-more": true,
		good + "-more":            false,
		"ff" + good[2:]:           false,
		good[:54]:                 false,
		strings.ToUpper(good):     false,
		"00-" + strings.Repeat("0", 32) + good[35:]: false,
		good[:36] + strings.Repeat("0", 16) + "-01": false,
		strings.Replace(good, "-", "_", 1):          false,
	} {
		require.Equal(t, valid, validTraceparent(value), value)
	}
}

func TestResponseHeadersThatAreNotSentBack(t *testing.T) {
	dropped := []string{
		"Set-Cookie", "Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers", "Refresh", "NEL",
		"Report-To", "Public-Key-Pins", "X-Bifrost-Error", "X-Bifrost-Anything", "X_Bifrost_Error", "X.Bifrost.Connection",
	}
	kept := []string{"Retry-After", "ETag", "Content-Disposition", "X-RateLimit-Remaining", "Www-Authenticate", "X-Whatever", "Cache-Control", "Vary"}
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range append(dropped, kept...) {
			w.Header()[http.CanonicalHeaderKey(name)] = []string{"CANARY-value"}
		}
		w.Header().Set("X-Request-Id", "theirs")
		w.WriteHeader(http.StatusTeapot)
	})
	res, _ := b.get(t, "/graph/x", "X-Request-ID: mine")
	require.Equal(t, http.StatusTeapot, res.StatusCode)
	for _, name := range dropped {
		require.NotContains(t, res.Header, http.CanonicalHeaderKey(name))
	}
	for _, name := range kept {
		require.Equal(t, []string{"CANARY-value"}, res.Header.Values(name), name)
	}
	require.Equal(t, []string{"mine"}, res.Header.Values("X-Request-Id"))
	require.Equal(t, []string{"org"}, res.Header.Values("X-Bifrost-Connection"))
}

// net/http guesses a Content-Type where an answer has none, and a browser believes it.
func TestAnAnswerWithoutAContentTypeGetsNone(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = w.Write([]byte("<html><script>"))
	})
	res, body := b.get(t, "/graph/x")
	require.Equal(t, "<html><script>", body)
	require.NotContains(t, res.Header, "Content-Type")
	res, _ = b.get(t, "/graph/../x")
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
}

func TestTheQueryCredentialReplacesTheCallersOwn(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.RequestURI+"&page=2#here")
		w.Header().Set("Link", "<"+r.RequestURI+`>; rel="next"`)
		w.WriteHeader(http.StatusFound)
	}, onRoute(func(r *Route) { r.Query = "access_token" }))
	res, _ := b.get(t, "/graph/x?a=1&access_token=evil&Access%5Ftoken=evil&b=%2F&c;d=e")
	got := b.last(t)
	require.Equal(t, "/x?a=1&b=%2F&c;d=e&access_token=Bearer+CANARY-token-acme", got.RequestURI)
	require.NotContains(t, got.Header, "Authorization")
	require.Equal(t, "/graph/x?a=1&b=%2F&c;d=e&page=2#here", res.Header.Get("Location"))
	require.Equal(t, "<"+b.front.URL+`/graph/x?a=1&b=%2F&c;d=e>; rel="next"`, res.Header.Get("Link"))
	require.NotContains(t, b.logs.String(), "CANARY")

	before := len(b.requests())
	for _, hidden := range []string{"a=1;access_token=evil", "%zz=1", "a;%61ccess_token=x"} {
		res, _ = b.get(t, "/graph/x?"+hidden)
		require.Equal(t, 400, res.StatusCode, hidden)
	}
	require.Len(t, b.requests(), before)
}

// What is known to pass without a look must pass with one too, and must not when a target sets it.
func TestUsualHeadersPassUnlessTheyAreInjected(t *testing.T) {
	plain, err := newTarget(Target{BaseURL: "https://api.example"}, "Authorization")
	require.NoError(t, err)
	own, err := newTarget(Target{BaseURL: "https://api.example", Headers: map[string]string{"user_agent": "ours"}}, "Accept")
	require.NoError(t, err)
	for _, name := range usual {
		require.Equal(t, http.CanonicalHeaderKey(name), name, "else it is never found")
		require.True(t, plain.passes(name, false), name)
		require.True(t, (&target{injected: plain.injected}).passes(name, false), "%s, folded", name)
		require.Equal(t, name != "User-Agent" && name != "Accept", own.passes(name, false), name)
	}
}
