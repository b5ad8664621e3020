package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestReferencesToTheUpstream(t *testing.T) {
	at := func(base string) *target {
		made, err := newTarget(Target{BaseURL: base}, "Authorization")
		require.NoError(t, err)
		return made
	}
	plain, based, six := at("https://graph.microsoft.com"), at("https://API.example:8443/base/"), at("http://[::1]:80")
	for _, row := range []struct {
		upstream       *target
		public, prefix string
		from, to       string
	}{
		{plain, "", "/graph", "https://graph.microsoft.com/v1.0/users?$skip=1#x", "/graph/v1.0/users?$skip=1#x"},
		{plain, "https://b.example", "/graph", "https://graph.microsoft.com/v1.0/users?$skip=1", "https://b.example/graph/v1.0/users?$skip=1"},
		{plain, "", "/graph", "HTTPS://Graph.Microsoft.com:443/a%2Fb", "/graph/a%2Fb"},
		{plain, "", "/graph", "https://graph.microsoft.com", "/graph"},
		{plain, "", "/graph", "https://graph.microsoft.com?x", "/graph?x"},
		{plain, "", "/graph", "//graph.microsoft.com/x", "/graph/x"},
		{plain, "", "/graph", "/v1.0/users", "/graph/v1.0/users"},
		{plain, "", "", "https://graph.microsoft.com/x", "/x"},
		{plain, "", "", "https://graph.microsoft.com", "/"},
		{plain, "", "", "https://graph.microsoft.com//evil.example/x", "https://graph.microsoft.com//evil.example/x"},
		{plain, "", "/graph", "http://graph.microsoft.com/x", "http://graph.microsoft.com/x"},
		{plain, "", "/graph", "https://graph.microsoft.com:444/x", "https://graph.microsoft.com:444/x"},
		{plain, "", "/graph", "https://graph.microsoft.com:4433/x", "https://graph.microsoft.com:4433/x"},
		{plain, "", "/graph", "https://graph.microsoft.com:4", "https://graph.microsoft.com:4"},
		{plain, "", "/graph", "https://graph.microsoft.com:/x", "/graph/x"},
		{plain, "", "/graph", "https://graph.microsoft.com:443", "/graph"},
		{plain, "", "/graph", `https:\/\/graph.microsoft.com\/x`, `https:\/\/graph.microsoft.com\/x`},
		{plain, "", "/graph", `https:\/\/graph.microsoft.com/x`, `https:\/\/graph.microsoft.com/x`},
		{plain, "", "/graph", "https://graph.microsoft", "https://graph.microsoft"},
		{plain, "", "/graph", "//graph.microsoft.com.evil.example/x", "//graph.microsoft.com.evil.example/x"},
		{plain, "", "/graph", "https://graph.microsoft.com.evil.example/x", "https://graph.microsoft.com.evil.example/x"},
		{plain, "", "/graph", "https://graph.microsoft.com@evil.example/x", "https://graph.microsoft.com@evil.example/x"},
		{plain, "", "/graph", "https://u:p@graph.microsoft.com/x", "https://u:p@graph.microsoft.com/x"},
		{plain, "", "/graph", "https://files.example/signed?sig=1", "https://files.example/signed?sig=1"},
		{plain, "", "/graph", "https://graph.microsoft.com/a/../b", "https://graph.microsoft.com/a/../b"},
		{plain, "", "/graph", "users/2", "users/2"},
		{plain, "", "/graph", "?page=2", "?page=2"},
		{plain, "", "/graph", "", ""},
		{based, "", "/api", "https://api.example:8443/base/x", "/api/x"},
		{based, "", "/api", "https://api.example:8443/base", "/api"},
		{based, "", "/api", "https://api.example:8443/basement", "https://api.example:8443/basement"},
		{based, "", "/api", "https://api.example:8443/other", "https://api.example:8443/other"},
		{based, "", "/api", "https://api.example/base/x", "https://api.example/base/x"},
		{based, "", "/api", "/base/x", "/api/x"},
		{based, "", "/api", "//api.EXAMPLE:8443/base/x", "/api/x"},
		{based, "", "/api", "https://api.example:84431/base/x", "https://api.example:84431/base/x"},
		{based, "", "/api", "https://api.example:8443/BASE/x", "https://api.example:8443/BASE/x"},
		{six, "", "/six", "http://[::1]/x", "/six/x"},
		{six, "", "/six", "HTTP://[::1]:80/x", "/six/x"},
		{six, "", "/six", "http://[::1]:8080/x", "http://[::1]:8080/x"},
		{based, "", "/api", "/login", "https://API.example:8443/login"},
	} {
		lw := linkRewriter{upstream: row.upstream, public: row.public, prefix: row.prefix}
		require.Equal(t, row.to, lw.reference(row.from), "%q", row.from)
	}
}

func TestLinkHeaders(t *testing.T) {
	up, err := newTarget(Target{BaseURL: "https://api.github.com"}, "Authorization")
	require.NoError(t, err)
	lw := linkRewriter{upstream: up, public: "https://b.example", prefix: "/github"}
	for from, to := range map[string]string{
		`<https://api.github.com/repos?page=2>; rel="next", <https://api.github.com/repos?page=9>; rel="last"`: `<https://b.example/github/repos?page=2>; rel="next", <https://b.example/github/repos?page=9>; rel="last"`,
		`<https://other.example/x>; rel=next`:                                            `<https://other.example/x>; rel=next`,
		`<https://api.github.com/x>; title="<https://api.github.com/y> \"<z>"; rel=next`: `<https://b.example/github/x>; title="<https://api.github.com/y> \"<z>"; rel=next`,
		`<https://api.github.com/x`:                                                      `<https://api.github.com/x`,
		`nothing`:                                                                        `nothing`,
		`<>; rel=self`:                                                                   `<>; rel=self`,
	} {
		require.Equal(t, to, lw.link(from))
	}
}

// pointing answers with every kind of header that leads to another resource of an upstream under /base.
func pointing(w http.ResponseWriter, r *http.Request) {
	own := "http://" + r.Host + "/base"
	w.Header().Set("Location", own+"/next?x=1")
	w.Header().Set("Content-Location", "/base/self")
	w.Header().Add("Link", "<"+own+"/a>; rel=next")
	w.Header().Add("Link", "</base/b>; rel=prev")
	w.Header().Set("Operation-Location", own+"/jobs/1")
	w.Header().Set("OData-EntityId", own+"/users(1)")
	w.Header().Set("X-Elsewhere", "https://files.example/base/x")
	w.Header().Set("X-Prose", own+"/x?y is where it was")
	w.WriteHeader(http.StatusFound)
}

func TestAnswersPointBackToTheProxy(t *testing.T) {
	b := start(t, pointing, underBase("/base"))
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 302, res.StatusCode, "redirects are the caller's to follow")
	require.Len(t, b.requests(), 1)
	require.Equal(t, "/graph/next?x=1", res.Header.Get("Location"))
	require.Equal(t, "/graph/self", res.Header.Get("Content-Location"))
	require.Equal(t, []string{"<" + b.front.URL + "/graph/a>; rel=next", "<" + b.front.URL + "/graph/b>; rel=prev"}, res.Header.Values("Link"),
		"clients would put their base URL before a rooted path")
	require.Equal(t, b.upstream.URL+"/base/jobs/1", res.Header.Get("Operation-Location"), "only with rewrite_links")
}

func TestWithRewriteLinksEveryHeaderThatIsAnAddressOfTheUpstreamPointsBack(t *testing.T) {
	rewriting := onRoute(func(r *Route) { r.RewriteLinks = true })
	b := start(t, pointing, underBase("/base"), rewriting)
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, "/graph/next?x=1", res.Header.Get("Location"))
	require.Equal(t, b.front.URL+"/graph/jobs/1", res.Header.Get("Operation-Location"))
	require.Equal(t, b.front.URL+"/graph/users(1)", res.Header.Get("OData-EntityId"))
	require.Equal(t, "https://files.example/base/x", res.Header.Get("X-Elsewhere"))
	require.Equal(t, b.upstream.URL+"/base/x?y is where it was", res.Header.Get("X-Prose"))

	b = start(t, pointing, underBase("/base"), rewriting, onConfig(func(c *Config) { c.PublicURL = "https://b.example/" }))
	res, _ = b.get(t, "/graph/x")
	require.Equal(t, "https://b.example/graph/next?x=1", res.Header.Get("Location"))
	require.Equal(t, "https://b.example/graph/jobs/1", res.Header.Get("Operation-Location"))
	require.Equal(t, []string{"<https://b.example/graph/a>; rel=next", "<https://b.example/graph/b>; rel=prev"}, res.Header.Values("Link"))
}

func TestAHostThatIsNoneStandsInNoLink(t *testing.T) {
	b := start(t, pointing, underBase("/base"), onRoute(func(r *Route) { r.RewriteLinks = true }))
	r := b.request(t, "GET", "/graph/x", "")
	r.Host = "evil'&$"
	res, _ := b.do(t, r)
	require.Equal(t, []string{"</graph/a>; rel=next", "</graph/b>; rel=prev"}, res.Header.Values("Link"))
	require.Equal(t, b.upstream.URL+"/base/jobs/1", res.Header.Get("Operation-Location"))
}

func TestHostsReachTheUpstreamWithTheirWholePath(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "http://"+r.Host+"/next")
		w.Header().Set("Link", "</more>; rel=next")
		w.WriteHeader(http.StatusCreated)
	}, onRoute(func(r *Route) { r.Hosts = []string{"Graph.internal", "graph.internal:9000"} }))
	for _, host := range []string{"graph.internal", "GRAPH.internal:1234", "graph.internal:9000"} {
		r := b.request(t, "GET", "/graph/v1.0?x", "")
		r.Host = host
		res, _ := b.do(t, r)
		require.Equal(t, 201, res.StatusCode)
		require.Equal(t, "/graph/v1.0?x", b.last(t).RequestURI)
		require.Equal(t, "/next", res.Header.Get("Location"))
		require.Equal(t, "<http://"+host+"/more>; rel=next", res.Header.Get("Link"))
	}
	r := b.request(t, "GET", "/v1.0", "")
	r.Host = "evilgraph.internal"
	res, _ := b.do(t, r)
	require.Equal(t, 404, res.StatusCode)
}

func TestTheLongestRouteWins(t *testing.T) {
	var got string
	b := start(t, nil, func(b *bench, c *Config, r *Route) {
		for _, prefix := range []string{"/graph/v1.0", "/", "/graph/v1.0/users/deep"} {
			c.Routes = append(c.Routes, Route{Integration: "at" + prefix, Prefix: prefix, Target: func(tokenstore.Org) (Target, error) {
				return Target{BaseURL: b.upstream.URL + "/for" + strings.TrimSuffix(prefix, "/")}, nil
			}})
		}
	})
	for path, want := range map[string]string{
		"/graph":                   "/",
		"/graph/":                  "/",
		"/graph/v1":                "/v1",
		"/graph/v1.0":              "/for/graph/v1.0",
		"/graph/v1.0/users":        "/for/graph/v1.0/users",
		"/graph/v1.0x":             "/v1.0x",
		"/graph/v1.0/users/deep/x": "/for/graph/v1.0/users/deep/x",
		"/graph%2Fv1.0":            "/for/graph%2Fv1.0",
		"/other":                   "/for/other",
	} {
		b.raw(t, line("GET", path))
		got = b.last(t).RequestURI
		require.Equal(t, want, got, path)
	}
	require.Equal(t, "unknown_route", b.raw(t, line("GET", "/_bifrost/x")).Header.Get("X-Bifrost-Error"))
}

func TestRoutesThatCannotBe(t *testing.T) {
	to := func(tokenstore.Org) (Target, error) { return Target{}, nil }
	for _, routes := range [][]Route{
		{{Integration: "a", Target: to}},
		{{Prefix: "/a", Target: to}},
		{{Integration: "a", Prefix: "/a"}},
		{{Integration: "a", Prefix: "a", Target: to}},
		{{Integration: "a", Prefix: "/a/../b", Target: to}},
		{{Integration: "a", Prefix: `/a"b`, Target: to, RewriteLinks: true}},
		{{Integration: "a", Prefix: "/_bifrost", Target: to}},
		{{Integration: "a", Prefix: "/_bifrost/x", Target: to}},
		{{Integration: "a", Prefix: "/a", Target: to}, {Integration: "b", Prefix: "/a/", Target: to}},
		{{Integration: "a", Hosts: []string{"h"}, Target: to}, {Integration: "b", Hosts: []string{"H"}, Target: to}},
		{{Integration: "a", Prefix: "/a", Target: to, Deny: []string{"x"}}},
	} {
		_, err := New(Config{Broker: &fakeBroker{}, Routes: routes})
		require.Error(t, err)
	}
	_, err := New(Config{})
	require.Error(t, err)
	for _, public := range []string{"b.example", `https://b.example/"`, `https://b.example/\`} {
		_, err = New(Config{Broker: &fakeBroker{}, PublicURL: public})
		require.Error(t, err, public)
	}
}
