package proxy

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// The matrix: whoever calls, for whichever org, integration, method and path, with whatever credential, is let through or gets the
// exact code that the contract's sentences say. These are read here by an oracle that shares nothing with the proxy.

// matrixCaller is a caller and what the oracle knows of it.
type matrixCaller struct {
	name         string
	orgs         []string
	integrations []string
	allow        []string
	fits         func(method, path string) bool // what allow means; nil: everything
	cert         *tls.Certificate
	jwts         map[string]string // by what is wrong with them; "": nothing
}

func (c *matrixCaller) key(which string) string { return "CANARY-" + which + "-key-of-" + c.name }

func (c *matrixCaller) uri() string { return "spiffe://example.test/" + c.name }

func matrixCallers() []*matrixCaller {
	return []*matrixCaller{
		{name: "everywhere", orgs: []string{"*"}, integrations: []string{"*"}},
		{name: "both", orgs: []string{"acme", "globex", "@global"}, integrations: []string{"graph", "files"}},
		{name: "global", orgs: []string{"@global"}, integrations: []string{"graph"}},
		{name: "bound", orgs: []string{"acme"}, integrations: []string{"graph", "files"}, allow: []string{"GET /v1.0/**", "POST /v1.0/users/*/sendMail"},
			fits: func(method, path string) bool {
				return method == "GET" && path != "/beta/x" && path != "/admin/x" || method == "POST" && path == "/v1.0/users/7/sendMail"
			}},
		{name: "stranger", orgs: []string{"elsewhere"}, integrations: []string{"graph"}},
	}
}

// matrixOrg is what the headers say of the org. acme is connected, globex is not, initech's grant is dead; umbrella is an org that nobody
// has heard of, and that files, with its only_orgs, cannot serve.
type matrixOrg struct {
	name   string // a valid name, or "@global"; empty: none
	header http.Header
	code   string // what is wrong with the headers
}

func matrixOrgs() []matrixOrg {
	list := []matrixOrg{
		{name: "@global", header: http.Header{"X-Org-Scope": {"global"}}},
		{},
		{header: http.Header{"X-Org-Scope": {"all"}}, code: "org_invalid"},
		{header: http.Header{"X-Org-Id": {"acme"}, "X-Org-Scope": {"global"}}, code: "org_invalid"},
		{header: http.Header{"X-Org-Id": {"acme", "acme"}}, code: "org_invalid"},
		{header: http.Header{"X-Org-Id": {"@global"}}, code: "org_invalid"},
		{header: http.Header{"X-Org-Id": {"no org"}}, code: "org_invalid"},
	}
	for _, name := range []string{"acme", "globex", "initech", "umbrella"} {
		list = append(list, matrixOrg{name: name, header: http.Header{"X-Org-Id": {name}}})
	}
	return list
}

// matrixKind is a way to say who calls. Another way is another row of matrixKinds.
type matrixKind struct {
	name   string
	proves bool // that the caller calls
	dress  func(h http.Header, c, other *matrixCaller) *tls.Certificate
}

func matrixKinds(nobody *tls.Certificate) []matrixKind {
	header := func(name string, value func(c, other *matrixCaller) string) func(http.Header, *matrixCaller, *matrixCaller) *tls.Certificate {
		return func(h http.Header, c, other *matrixCaller) *tls.Certificate {
			h.Set(name, value(c, other))
			return nil
		}
	}
	authorization := func(format string) func(http.Header, *matrixCaller, *matrixCaller) *tls.Certificate {
		return header("Authorization", func(c, _ *matrixCaller) string { return fmt.Sprintf(format, c.key("good")) })
	}
	jwt := func(wrong string) func(http.Header, *matrixCaller, *matrixCaller) *tls.Certificate {
		return header("Authorization", func(c, _ *matrixCaller) string { return "Bearer " + c.jwts[wrong] })
	}
	encoded := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	return []matrixKind{
		{"Bearer", true, authorization("Bearer %s")},
		{"token", true, authorization("token %s")},
		{"Basic user", true, header("Authorization", func(c, _ *matrixCaller) string { return encoded(c.key("good") + ":") })},
		{"Basic password", true, header("Authorization", func(c, _ *matrixCaller) string { return encoded("x:" + c.key("good")) })},
		{"X-Bifrost-Key", true, header("X-Bifrost-Key", func(c, _ *matrixCaller) string { return c.key("good") })},
		{"second key", true, header("X-Bifrost-Key", func(c, _ *matrixCaller) string { return c.key("second") })},
		{"certificate", true, func(_ http.Header, c, _ *matrixCaller) *tls.Certificate { return c.cert }},
		{"JWT", true, jwt("")},
		{"certificate beside a foreign Authorization", true, func(h http.Header, c, _ *matrixCaller) *tls.Certificate {
			h.Set("Authorization", "Bearer CANARY-of-somebody")
			return c.cert
		}},
		{"key beside another's certificate", true, func(h http.Header, c, other *matrixCaller) *tls.Certificate {
			h.Set("Authorization", "Bearer "+c.key("good"))
			return other.cert
		}},
		{"X-Bifrost-Key beside another's key", true, func(h http.Header, c, other *matrixCaller) *tls.Certificate {
			h.Set("X-Bifrost-Key", c.key("good"))
			h.Set("Authorization", "Bearer "+other.key("good"))
			return nil
		}},
		{"wrong X-Bifrost-Key beside everything", false, func(h http.Header, c, _ *matrixCaller) *tls.Certificate {
			h.Set("X-Bifrost-Key", "CANARY-wrong")
			h.Set("Authorization", "Bearer "+c.key("good"))
			return c.cert
		}},
		{"wrong key", false, header("Authorization", func(c, _ *matrixCaller) string { return "Bearer " + c.key("wrong") })},
		{"ended key", false, header("Authorization", func(c, _ *matrixCaller) string { return "Bearer " + c.key("ended") })},
		{"JWT for another audience", false, jwt("foreign")},
		{"ended JWT", false, jwt("ended")},
		{"Authorization twice", false, func(h http.Header, c, _ *matrixCaller) *tls.Certificate {
			h["Authorization"] = []string{"Bearer " + c.key("good"), "Bearer " + c.key("good")}
			return nil
		}},
		{"X-Bifrost-Key twice", false, func(h http.Header, c, _ *matrixCaller) *tls.Certificate {
			h["X-Bifrost-Key"] = []string{c.key("good"), c.key("good")}
			return c.cert
		}},
		{"certificate of nobody", false, func(http.Header, *matrixCaller, *matrixCaller) *tls.Certificate { return nobody }},
		{"none", false, func(http.Header, *matrixCaller, *matrixCaller) *tls.Certificate { return nil }},
	}
}

// matrixRow is one request.
type matrixRow struct {
	caller, other             *matrixCaller
	org                       matrixOrg
	integration, method, path string
	kind                      matrixKind
}

func (r matrixRow) String() string {
	return fmt.Sprintf("%s by %s: %s /%s%s for %v", r.caller.name, r.kind.name, r.method, r.integration, r.path, r.org.header)
}

// want is the oracle: the status, and the code where the proxy itself answers. Its lines are the contract's sentences.
func (r matrixRow) want() (int, string) {
	c, org := r.caller, r.org.name
	switch { // 2.7, 2.4: who calls, and whether they may use the integration at all
	case r.integration == "nowhere":
		return 404, "unknown_route"
	case !r.kind.proves:
		return 401, "caller_unauthenticated"
	case !slices.Contains(c.integrations, "*") && !slices.Contains(c.integrations, r.integration):
		return 403, "caller_forbidden"
	case r.method == "PROPFIND" || r.integration == "files" && r.method != "GET":
		return 405, "method_not_allowed"
	case r.org.code != "":
		return 400, r.org.code
	}
	if org == "" { // 2.2: the one org that the caller is bound to; omitted is never global
		switch c.name {
		case "bound":
			org = "acme"
		case "stranger":
			org = "elsewhere"
		default:
			return 400, "org_required"
		}
	}
	allOrgs := slices.Contains(c.orgs, "*") && org != "@global" // "*" does not include @global
	switch {
	case !allOrgs && !slices.Contains(c.orgs, org),
		c.fits != nil && !c.fits(r.method, r.path),
		r.integration == "files" && org != "@global" && org != "acme" && org != "globex", // only_orgs
		r.integration == "graph" && r.path == "/admin/x":                                 // deny
		return 403, "caller_forbidden"
	case org == "acme", org == "@global": // 2.3
		return 200, ""
	case org == "initech":
		return 424, "needs_reconnect"
	}
	return 424, "not_connected"
}

// let reports whether the row may cause a look at the store.
func (r matrixRow) let() bool {
	status, _ := r.want()
	return status == 200 || status == 424
}

// matrixRows is the whole product, but for a route that does not exist, where one path is as good as another.
func matrixRows(callers []*matrixCaller, kinds []matrixKind) []matrixRow {
	var rows []matrixRow
	for i, c := range callers {
		for _, kind := range kinds {
			for _, integration := range []string{"graph", "files", "nowhere"} {
				for _, org := range matrixOrgs() {
					for _, method := range []string{"GET", "POST", "PROPFIND"} {
						for _, path := range []string{"/v1.0/users/7", "/v1.0/users/7/sendMail", "/beta/x", "/admin/x"} {
							if integration == "nowhere" && path != "/beta/x" {
								continue
							}
							rows = append(rows, matrixRow{c, callers[(i+1)%len(callers)], org, integration, method, path, kind})
						}
					}
				}
			}
		}
	}
	return rows
}

// matrixBench is a proxy of these callers.
func matrixBench(t *testing.T, callers []*matrixCaller, issuer JWTIssuer) *bench {
	t.Helper()
	b := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) },
		func(_ *bench, c *Config, r *Route) {
			c.Callers, c.LogRequests, c.JWT = nil, false, []JWTIssuer{issuer}
			for _, one := range callers {
				c.Callers = append(c.Callers, Caller{
					Name: one.name, Key: func() string { return one.key("good") }, SANs: []string{one.uri()}, Subjects: []Subject{{issuer.Issuer, one.name}},
					Keys: []Key{{SHA256: digestOf(one.key("second")), NotAfter: time.Now().Add(time.Hour)}, {SHA256: digestOf(one.key("ended")), NotAfter: time.Now().Add(-time.Second)}},
					Orgs: one.orgs, Integrations: one.integrations, Allow: one.allow,
				})
			}
			c.Routes = []Route{{Integration: "files", Prefix: "/files", Target: r.Target, Methods: []string{"GET"}, OnlyOrgs: []tokenstore.Org{"acme", "globex"}}}
			r.Integration, r.Deny = "graph", []string{"* /admin/**"}
		})
	b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
		switch slot.Org {
		case "acme", tokenstore.Global:
			return authflow.NewCredential(slot, tokenOf(slot.Org)), nil
		case "initech":
			return authflow.Credential{}, authflow.ErrReconnect
		}
		return authflow.Credential{}, authflow.ErrNotConnected
	}
	return b
}

// answer is all that a caller sees, but for what differs in any case: the time and the request's id.
type answer struct{ head, body string }

var requestIDs = regexp.MustCompile(`"request_id":"[^"]*"`)

func answerOf(t *testing.T, res *http.Response) answer {
	t.Helper()
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	res.Header.Del("Date")
	res.Header.Del("X-Request-Id")
	var head strings.Builder
	fmt.Fprintln(&head, res.Proto, res.Status, res.ContentLength)
	require.NoError(t, res.Header.Write(&head))
	return answer{head.String(), requestIDs.ReplaceAllString(string(body), `"request_id":""`)}
}

func TestTheMatrixOfWhoMayDoWhat(t *testing.T) {
	a, callers := newAuthority(t), matrixCallers()
	signer := newSigningKey(t, "one")
	issuer := newKeyIssuer(signer).serve(t)
	for _, c := range callers {
		c.cert = a.issue(t, subject{uris: []string{c.uri()}})
		c.jwts = map[string]string{
			"":        issuer.token(t, signer, map[string]any{"sub": c.name, "tid": nil}),
			"foreign": issuer.token(t, signer, map[string]any{"sub": c.name, "tid": nil, "aud": "another"}),
			"ended":   issuer.token(t, signer, map[string]any{"sub": c.name, "tid": nil, "exp": time.Now().Add(-time.Hour).Unix()}),
		}
	}
	b := matrixBench(t, callers, issuer.config())
	front := b.overTLS(t, a, tls.VerifyClientCertIfGiven)
	kinds := matrixKinds(a.issue(t, subject{uris: []string{"spiffe://example.test/nobody"}}))
	rows := matrixRows(callers, kinds)
	clients := make(map[*tls.Certificate]http.RoundTripper)
	dressed := func(r matrixRow) (*http.Request, http.RoundTripper) {
		req, err := http.NewRequest(r.method, front.URL+"/"+r.integration+r.path, nil)
		require.NoError(t, err)
		for name, values := range r.org.header {
			req.Header[name] = values
		}
		cert := r.kind.dress(req.Header, r.caller, r.other)
		if clients[cert] == nil {
			clients[cert] = showing(t, front, cert)
		}
		return req, clients[cert]
	}

	slices.SortStableFunc(rows, func(a, b matrixRow) int { // the refused first
		if a.let() == b.let() {
			return 0
		} else if a.let() {
			return 1
		}
		return -1
	})
	let := slices.IndexFunc(rows, matrixRow.let)
	answers := make(map[string]answer)
	counts := make(map[string]int)
	for i, r := range rows {
		if i == let {
			require.Zero(t, b.broker.asked.Load(), "a refused request caused a look at the store")
			require.Empty(t, b.requests(), "a refused request was sent upstream")
		}
		req, client := dressed(r)
		res, err := client.RoundTrip(req)
		require.NoError(t, err, r)
		status, code := r.want()
		got := answerOf(t, res)
		require.Equal(t, status, res.StatusCode, "%v: %s", r, got.body)
		require.Equal(t, code, res.Header.Get("X-Bifrost-Error"), "%v", r)
		counts[code]++
		if r.let() {
			continue
		}
		same := code // of refusals, all have the same bytes
		if status != 401 && status != 403 && r.org.name != "" && r.org.name != "@global" {
			same = fmt.Sprint(code, r.caller.name, r.kind.name, r.integration, r.method, r.path) // but for the org, all is the same
		} else if status != 401 && status != 403 {
			continue
		}
		if first, ok := answers[same]; ok {
			require.Equal(t, first, got, "%v: a refused caller can tell orgs apart", r)
		}
		answers[same] = got
	}
	require.Equal(t, int64(len(rows)-let), b.broker.asked.Load())
	require.Len(t, b.requests(), counts[""])
	for _, code := range []string{"", "caller_unauthenticated", "caller_forbidden", "method_not_allowed", "org_invalid", "org_required", "needs_reconnect", "not_connected", "unknown_route"} {
		require.Greater(t, counts[code], 40, "rows with %q", code)
	}
	require.NotContains(t, b.logs.String(), "CANARY")
	t.Logf("%d requests: %v", len(rows), counts)
}
