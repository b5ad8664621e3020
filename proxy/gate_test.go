package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGateTable(t *testing.T) {
	for target, accepted := range map[string]bool{
		"/graph/v1.0/users":                     true,
		"/graph":                                true,
		"/":                                     true,
		"/graph//v1.0":                          true,
		"/graph/a%2Fb":                          true,
		"/graph/a%20b+c;d=1":                    true,
		"/graph/users('a')/{id}|\"<>^`":         true,
		"/graph/\xff":                           true,
		"/graph/...":                            true,
		"/graph/.well-known/x":                  true,
		"/graph/a..b":                           true,
		"/graph/100%25":                         true,
		"/graph/%25zz":                          true,
		"/graph/x?a=%zz&b":                      true,
		"/graph/x?":                             true,
		"/graph/x?a=../..&b=\\&c=/../":          true,
		"/graph/x?$expand=m($select=id;$top=5)": true,

		"":                          false,
		"*":                         false,
		"graph":                     false,
		"//graph/x":                 false,
		"/graph/../x":               false,
		"/graph/..":                 false,
		"/..":                       false,
		"/./graph":                  false,
		"/graph/.":                  false,
		"/graph/%2e%2e/x":           false,
		"/graph/.%2E/x":             false,
		"/graph/%2e":                false,
		"/graph/%252e%252e/x":       false,
		"/graph/.%252e/x":           false,
		"/graph/%2e%252E/x":         false,
		"/graph/..%2fx":             false,
		"/graph/..%2F..%2Fx":        false,
		"/graph/a%2f..%2fb":         false,
		"/graph/a%252f..%252fb":     false,
		"/graph/..%252fx":           false,
		"/graph/..%5cx":             false,
		"/graph/..%255cx":           false,
		"/graph/%255c..%255cx":      false,
		"/graph/..;/x":              false,
		"/graph/..;a=b/x":           false,
		"/graph/..%3bx/y":           false,
		"/graph/.;x":                false,
		`/graph\x`:                  false,
		`/graph/\..\x`:              false,
		"/graph/%5cx":               false,
		"/graph/%5Cx":               false,
		"/graph/%00":                false,
		"/graph/%0d%0aX:1":          false,
		"/graph/%7f":                false,
		"/graph/\x00":               false,
		"/graph/\x7f":               false,
		"/graph/a b":                false,
		"/graph/x?a=\x01":           false,
		"/graph/x?a= b":             false,
		"/graph/%":                  false,
		"/graph/%z":                 false,
		"/graph/%zz":                false,
		"/graph/%2":                 false,
		"/graph/x#frag":             false,
		"/graph/x?a#frag":           false,
		"ftp://example.com/graph":   false,
		"http:///graph":             false,
		"http://u:p@example.com/x":  false,
		"http://example.com//graph": false,
		"http://example.com/a/../b": false,
		"example.com:443":           false,
	} {
		_, ok := parseTarget(target)
		require.Equal(t, accepted, ok, "%q", target)
	}
}

func TestAbsoluteFormIsSplit(t *testing.T) {
	got, ok := parseTarget("HTTP://Example.com:80/graph/x?y")
	require.True(t, ok)
	require.Equal(t, rawTarget{path: "/graph/x", query: "y", hasQuery: true, form: "Example.com:80"}, got)
}

// raw sends bytes as they are and returns the answer.
func (b *bench) raw(t *testing.T, request string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = conn.Write([]byte(request))
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// line is a whole request with the caller's key for org acme.
func line(method, target string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Bifrost-Key: %s\r\nX-Org-ID: acme\r\n%s\r\n",
		method, target, callerKey, strings.Join(append(headers, ""), "\r\n"))
}

func TestAcceptedTargetsReachTheUpstreamByteForByte(t *testing.T) {
	for _, base := range []string{"", "/base", "/base/v1.0%2Fx"} {
		b := start(t, nil, underBase(base))
		for _, rest := range []string{
			"/v1.0/users", "/a%2Fb", "/a%20b", "/a+b;c=1/d", "/users('x')", "/{id}|\"<>^`", "/\xff\xc3\xa9", "//double//slash/", "/100%25",
			"/x?$expand=members($select=id;$top=5)&$filter=x", "/x?a=%zz", "/x?", "/x?a=b&a=c&&;", "/x?q=%2F%20+", "/x?u=http://h/../", "/",
		} {
			res := b.raw(t, line("GET", "/graph"+rest))
			require.Equal(t, 200, res.StatusCode, "%q", rest)
			require.Equal(t, base+rest, b.last(t).RequestURI)
		}
		res := b.raw(t, line("GET", "/graph"))
		require.Equal(t, 200, res.StatusCode)
		if base == "" {
			require.Equal(t, "/", b.last(t).RequestURI)
		} else {
			require.Equal(t, base, b.last(t).RequestURI)
		}
	}
}

func TestRefusedTargetsNeverReachBrokerOrUpstream(t *testing.T) {
	b := start(t, nil)
	for name, row := range map[string]struct {
		request string
		status  int
		code    string
	}{
		"dot segments":                {line("GET", "/graph/../x"), 400, "bad_request"},
		"encoded dots":                {line("GET", "/graph/%2e%2e/x"), 400, "bad_request"},
		"encoded slash after dots":    {line("GET", "/graph/..%2fx"), 400, "bad_request"},
		"path parameter after dots":   {line("GET", "/graph/..;/x"), 400, "bad_request"},
		"backslash":                   {line("GET", `/graph/\..\x`), 400, "bad_request"},
		"encoded NUL":                 {line("GET", "/graph/%00"), 400, "bad_request"},
		"leading double slash":        {line("GET", "//graph/x"), 400, "bad_request"},
		"fragment":                    {line("GET", "/graph/x#frag"), 400, "bad_request"},
		"foreign absolute form":       {line("GET", "http://evil.example/graph/x"), 400, "bad_request"},
		"absolute form with userinfo": {line("GET", "http://127.0.0.1@evil.example/graph/x"), 400, "bad_request"},
		"OPTIONS *":                   {line("OPTIONS", "*"), 400, "bad_request"},
		"CONNECT with a path":         {line("CONNECT", "/graph/x"), 405, "method_not_allowed"},
		"CONNECT":                     {line("CONNECT", "graph.example:443"), 405, "method_not_allowed"},
		"TRACE":                       {line("TRACE", "/graph/x"), 405, "method_not_allowed"},
		"lower-case method":           {line("get", "/graph/x"), 405, "method_not_allowed"},
		"unknown method":              {line("FOO", "/graph/x"), 405, "method_not_allowed"},
		"encoded slash in the route":  {line("GET", "/graph%2Fv1.0/users"), 404, "unknown_route"},
		"longer first segment":        {line("GET", "/graphx/users"), 404, "unknown_route"},
		"other case":                  {line("GET", "/Graph/users"), 404, "unknown_route"},
		"reserved":                    {line("GET", "/_bifrost/v1/integrations/x"), 404, "unknown_route"},
		"no route":                    {line("GET", "/"), 404, "unknown_route"},
		"upgrade to h2c":              {line("GET", "/graph/x", "Connection: Upgrade", "Upgrade: h2c"), 400, "bad_request"},
		"upgrade without connection":  {line("GET", "/graph/x", "Upgrade: foo"), 400, "bad_request"},
		"second org":                  {line("GET", "/graph/x", "x-org-id: evil"), 400, "org_invalid"},
		"folded org":                  {strings.Replace(line("GET", "/graph/x"), "acme", "ac\r\n me", 1), 400, "org_invalid"},
		"list of orgs":                {strings.Replace(line("GET", "/graph/x"), "acme", "acme,evil", 1), 400, "org_invalid"},
		"org with a no-break space":   {strings.Replace(line("GET", "/graph/x"), "acme", "\xa0acme", 1), 400, "org_invalid"},
		"org with a zero-width space": {strings.Replace(line("GET", "/graph/x"), "acme", "acme\u200b", 1), 400, "org_invalid"},
		"empty org":                   {strings.Replace(line("GET", "/graph/x"), "acme", "", 1), 400, "org_invalid"},
		"@global as org":              {strings.Replace(line("GET", "/graph/x"), "acme", "@global", 1), 400, "org_invalid"},
		"org and scope":               {line("GET", "/graph/x", "X-Org-Scope: global"), 400, "org_invalid"},
		"key sent twice":              {line("GET", "/graph/x", "X-Bifrost-Key: other"), 401, "caller_unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			res := b.raw(t, row.request)
			require.Equal(t, row.status, res.StatusCode)
			require.Equal(t, row.code, res.Header.Get("X-Bifrost-Error"))
		})
	}
	require.Empty(t, b.requests())
	require.Zero(t, b.broker.asked.Load())
}

// Without a base path, such a path could only be sent in another spelling.
func TestAPathThatCannotBeSentAsItCameIsRefused(t *testing.T) {
	b := start(t, nil)
	res := b.raw(t, line("GET", "/graph//{x}"))
	require.Equal(t, "bad_request", res.Header.Get("X-Bifrost-Error"))
	require.Empty(t, b.requests())
}

// net/http itself answers what it cannot parse, before any handler.
func TestMalformedRequestsAreRefusedByTheServer(t *testing.T) {
	b := start(t, nil)
	for request, status := range map[string]int{
		line("GET", "/graph/%zz"): 400,
		line("GET", "/graph/a b"): 400,
		line("POST", "/graph/x", "Content-Length: 1", "Content-Length: 2"):               400,
		line("POST", "/graph/x", "Content-Length: +4"):                                   400,
		line("POST", "/graph/x", "Transfer-Encoding: xchunked"):                          501,
		line("POST", "/graph/x", "Transfer-Encoding: chunked, identity"):                 501,
		strings.Replace(line("GET", "/graph/x"), "Host: 127.0.0.1\r\n", "", 1):           400,
		strings.Replace(line("GET", "/graph/x"), "X-Org-ID: acme", "X-Org-ID : acme", 1): 400,
	} {
		require.Equal(t, status, b.raw(t, request).StatusCode, "%q", request)
	}
	require.Empty(t, b.requests())
}

func TestOwnAbsoluteFormsAreRouted(t *testing.T) {
	b := start(t, nil, onConfig(func(c *Config) { c.PublicURL = "https://bifrost.example.com" }))
	for _, host := range []string{"127.0.0.1", "localhost:9", "[::1]:80", "bifrost.example.com", b.front.Listener.Addr().String()} {
		res := b.raw(t, line("GET", "http://"+host+"/graph/v1.0/users?x"))
		require.Equal(t, 200, res.StatusCode, host)
		require.Equal(t, "/v1.0/users?x", b.last(t).RequestURI)
	}
}

// Over HTTP/1 net/http takes the Host from an absolute form, and refuses a malformed one; over HTTP/2 it does neither.
func TestAuthoritiesOverHTTP2(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) { r.Hosts = []string{"graph.internal"} }))
	for name, row := range map[string]struct {
		target, authority string
		status            int
	}{
		"one of ours":                       {"/graph/x", "localhost:8080", 200},
		"IPv6":                              {"/graph/x", "[::1]:8080", 200},
		"none":                              {"/graph/x", "", 200},
		"the absolute form's own":           {"https://localhost/graph/x", "localhost", 200},
		"another than the absolute form's":  {"https://localhost/graph/x", "127.0.0.1", 400},
		"the absolute form's in other case": {"https://localhost/graph/x", "LOCALHOST", 400},
		"a route's, with an absolute form":  {"https://localhost/x", "graph.internal", 400},
		"with a blank":                      {"/graph/x", "local host", 400},
		"with a path":                       {"/graph/x", "localhost/x", 400},
		"with a quote":                      {"/graph/x", `localhost"`, 400},
		"with bytes above ASCII":            {"/graph/x", "\xe9.example", 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request(t, "GET", "/graph/x", "")
			r.RequestURI, r.Host, r.ProtoMajor, r.ProtoMinor = row.target, row.authority, 2, 0
			w := httptest.NewRecorder()
			b.proxy.ServeHTTP(w, r)
			require.Equal(t, row.status, w.Code)
		})
	}
}

// RFC 9113 section 8.1.1: such a request is malformed, and net/http serves it.
func TestLengthsOverHTTP2(t *testing.T) {
	b := start(t, nil)
	for name, row := range map[string]struct {
		declared []string
		length   int64 // as net/http has it; -1: unknown
		status   int
	}{
		"none":                     {nil, -1, 200},
		"the true one":             {[]string{"5"}, 5, 200},
		"none of a request's body": {[]string{"0"}, 0, 200},
		"of a body that is none":   {[]string{"5"}, 0, 400},
		"malformed":                {[]string{"+5"}, 0, 400},
		"two":                      {[]string{"5", "6"}, 5, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request(t, "POST", "/graph/x", "hello")
			r.RequestURI, r.ProtoMajor, r.ProtoMinor, r.ContentLength = "/graph/x", 2, 0, row.length
			if row.length == 0 {
				r.Body = http.NoBody
			}
			if row.declared != nil {
				r.Header["Content-Length"] = row.declared
			}
			w := httptest.NewRecorder()
			b.proxy.ServeHTTP(w, r)
			require.Equal(t, row.status, w.Code)
		})
	}
}

// FuzzGate holds the gate against readers that know nothing of it: whatever passes has no dot segment in any of the first two
// decodings, and is written to an upstream byte for byte.
func FuzzGate(f *testing.F) {
	for _, seed := range []string{"/graph/x", "/a/%2e%2e/b", "/%252e./", "/..;x/", "http://h/a/..%5c", "/a?b#c", "/%%2e2e/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, ok := parseTarget(raw)
		if !ok {
			return
		}
		require.True(t, strings.HasPrefix(got.path, "/") && !strings.HasPrefix(got.path, "//"))
		require.True(t, strings.HasSuffix(raw, got.path) || strings.Contains(raw, got.path+"?") || got.path == "/")
		reading := got.path
		for range 3 {
			requireResolved(t, reading)
			reading = decodeOnce(reading)
		}
		for _, base := range []string{"", "/base", "/v1%2F0/{x}"} {
			requireWritten(t, &target{scheme: "https", host: "api.example.com", base: base}, got)
		}
	})
}

func TestAHundredHeaderNamesAreEnough(t *testing.T) {
	b := start(t, nil)
	with := func(total int) *http.Request {
		r := b.request(t, "GET", "/graph/x", "", "User-Agent: test", "Accept-Encoding: identity")
		for i := len(r.Header); i < total; i++ {
			r.Header[fmt.Sprintf("X-Extra-%d", i)] = []string{"one", "two"}
		}
		return r
	}
	res, _ := b.do(t, with(100))
	require.Equal(t, 200, res.StatusCode)
	res, body := b.do(t, with(101))
	require.Contains(t, requireProblem(t, res, body, 400, "bad_request").Detail, "100")
	require.Len(t, b.requests(), 1)
}

var anEscape = regexp.MustCompile("%[0-9A-Fa-f]{2}")

func decodeOnce(s string) string {
	return anEscape.ReplaceAllStringFunc(s, func(escape string) string {
		b, _ := strconv.ParseUint(escape[1:], 16, 8) // two digits
		return string([]byte{byte(b)})
	})
}

// requireResolved lets the standard library resolve a path as a server may see it: either slash separates, and parameters and
// empty segments do not count.
func requireResolved(t *testing.T, reading string) {
	t.Helper()
	var segments []string
	for _, segment := range strings.Split(strings.ReplaceAll(reading, `\`, "/"), "/") {
		if bare, _, _ := strings.Cut(segment, ";"); bare != "" {
			segments = append(segments, bare)
		}
	}
	joined := "/" + strings.Join(segments, "/")
	require.Equal(t, joined, path.Clean(joined))
}

// requireWritten requires that the request line to an upstream holds the target as it came. Where that cannot be done the request
// is refused; with a base path it can always.
func requireWritten(t *testing.T, upstream *target, got rawTarget) {
	t.Helper()
	for _, rest := range []string{got.path, "/" + got.path, ""} {
		u, err := upstream.url(rest, got.query, got.hasQuery)
		if err != nil {
			require.Empty(t, upstream.base)
			require.True(t, strings.HasPrefix(rest, "//"), "%q", rest)
			continue
		}
		want := upstream.base + rest
		if want == "" {
			want = "/"
		}
		if got.hasQuery {
			want += "?" + got.query
		}
		require.Equal(t, want, u.RequestURI())
		require.Equal(t, "api.example.com", u.Host)
	}
}
