package authflow

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// An error for an answer is believed after cookie and state only, and then changes nothing: the connection stays as it is.
func TestC11ADeniedConsentChangesNothing(t *testing.T) {
	g := newGround(t, consentSetup{})
	link := g.linkFor(acme)
	for code := range denials {
		b := g.newBrowser()
		denied := with(t, g.consent(b, link), "code", "", "error", code)
		before := g.state()
		g.refused(g.newBrowser(), denied, http.StatusBadRequest, notHere)
		g.refused(b, with(t, denied, "state", ""), http.StatusBadRequest, "This answer cannot be used")
		g.refused(b, with(t, denied, "state", newSecret()), http.StatusBadRequest, notHere)
		g.requireUntouched(before, code)

		page := g.refused(b, denied, http.StatusForbidden, "Graph was not connected")
		require.Contains(t, page.body, "Nothing was changed for acme.")
		require.Contains(t, page.body, "<code>"+code+"</code>")
		require.Equal(t, before.rows, g.dump("r"))
		require.Equal(t, before.posts, g.posts())
		require.Less(t, len(g.dump("s")), len(before.shelf), "the state is spent")
		g.refused(b, denied, http.StatusBadRequest, notHere)
	}
	connection, err := g.broker.Connection(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, Active, connection.Status)
	require.Nil(t, connection.LastError)
	g.connectWith(link)
}

// connectWith asserts that the link is still good.
func (g *ground) connectWith(link string) {
	g.t.Helper()
	b := g.newBrowser()
	require.Equal(g.t, http.StatusSeeOther, b.get(g.consent(b, link)).status)
}

// Answers that are none, from broken to hostile: refused without a look at the store, and the consent goes on.
func TestC12AMalformedAnswerIsRefusedWhole(t *testing.T) {
	g := newGround(t, consentSetup{})
	b := g.newBrowser()
	callback := g.consent(b, g.linkFor(acme))
	bare, query, _ := strings.Cut(callback, "?")
	values := mustParse(t, callback).Query()
	code, state := values.Get("code"), values.Get("state")
	before := g.state()
	g.failing(unavailable("peek consent:")) // which nobody may notice
	for name, spoilt := range map[string]string{
		"nothing":                     "",
		"separators alone":            "&&=&=&",
		"a code and an error":         query + "&error=access_denied",
		"neither":                     "state=" + state,
		"empty ones":                  "code=&error=&state=" + state,
		"no state":                    "code=" + code,
		"an empty state":              "state=&code=" + code,
		"two codes":                   query + "&code=" + code,
		"a code spelled otherwise":    query + "&%63ode=" + code,
		"two states":                  query + "&state=" + state,
		"two errors":                  "error=a&error=b&state=" + state,
		"two issuers":                 query + "&iss=a&iss=b",
		"a code of 100 kB":            "state=" + state + "&code=" + strings.Repeat("c", 100<<10),
		"a code over 8 KiB":           "state=" + state + "&code=" + strings.Repeat("c", maxParameter+1),
		"a state of 9 kB":             "code=" + code + "&state=" + strings.Repeat("s", 9<<10),
		"four thousand parameters":    query + strings.Repeat("&x=12345", 4<<10),
		"a line break in the code":    "state=" + state + "&code=" + code + "%0d%0aSet-Cookie:%20a=b",
		"a NUL in the code":           "state=" + state + "&code=" + code + "%00",
		"a NUL in the state":          "code=" + code + "&state=" + state + "%00",
		"a tab in the error":          "error=a%09b&state=" + state,
		"DEL":                         "code=%7f&state=" + state,
		"a broken escape":             "code=%zz&state=" + state,
		"half an escape":              query + "&x=%4",
		"invalid UTF-8":               "code=%ff%fe&state=" + state,
		"an overlong form of a slash": "code=%c0%af&state=" + state,
		"a letter outside ASCII":      "code=" + code + "%C3%A9&state=" + state,
		"a name in brackets":          "code[]=" + code + "&state=" + state,
		"names in capitals":           "CODE=" + code + "&STATE=" + state,
		"semicolons for ampersands":   "code=" + code + ";state=" + state,
	} {
		t.Run(name, func(t *testing.T) { g.refused(b, bare+"?"+spoilt, http.StatusBadRequest, "This answer cannot be used") })
	}
	for name, line := range map[string]string{ // what no client of ours would send
		"a raw NUL":            "GET /oauth/callback/Graph?code=\x00&state=s HTTP/1.1",
		"a raw line feed":      "GET /oauth/callback/Graph?code=a\nb&state=s HTTP/1.1",
		"raw bytes":            "GET /oauth/callback/Graph?code=\xff\xfe&state=\x80 HTTP/1.1",
		"a space":              "GET /oauth/callback/Graph?code=a b&state=s HTTP/1.1",
		"a fragment":           "GET /oauth/callback/Graph#code=a&state=s HTTP/1.1",
		"a name in the escape": "GET /oauth/callback/%zz?code=a&state=s HTTP/1.1",
		"no such protocol":     "GET /oauth/callback/Graph?code=a&state=s HTTP/9.9",
	} {
		t.Run(name, func(t *testing.T) {
			require.Regexp(t, `^HTTP/1\.[01] (400|404|505) `, g.raw(line))
		})
	}
	g.failing(nil)
	g.requireUntouched(before)
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
}

// raw sends one request line as it is, and returns the answer as it comes.
func (g *ground) raw(line string) string {
	g.t.Helper()
	conn, err := tls.Dial("tcp", g.listener, &tls.Config{InsecureSkipVerify: true})
	require.NoError(g.t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "%s\r\nHost: %s\r\nConnection: close\r\n\r\n", line, publicHost)
	require.NoError(g.t, err)
	answer, _ := io.ReadAll(conn) // a server that refuses may reset
	return string(answer)
}

// FuzzCallback sends queries to the whole handler: without a cookie nothing but a refusal can come of them.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{"", "code=c&state=s", "error=e&state=s&iss=i", "code=%00&&=&state", "code=<script>&state=\"'"} {
		f.Add(seed)
	}
	b, err := New(Config{
		Store: storetest.NewMemory(), PublicURL: "https://" + publicHost, Metrics: prometheus.NewRegistry(),
		Integrations: []*Integration{{Name: "Graph", ClientID: "c", ClientAuth: AuthNone, Resolve: nowhere}},
	})
	require.NoError(f, err)
	handler := b.Handler()
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/oauth/callback/Graph", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		require.Equal(t, http.StatusBadRequest, w.Code)
		require.Empty(t, w.Header()["Location"])
		require.Empty(t, w.Header()["Set-Cookie"])
	})
}

func nowhere(tokenstore.Org) (Endpoints, error) {
	return Endpoints{AuthorizationURL: "https://idp.test/authorize", TokenURL: "https://idp.test/token"}, nil
}

// An answer by form_post is a POST from another site, with which browsers send no cookie that is Lax: there is no such callback,
// and no configuration asks for one (config/testdata/bad/response-mode-form-post.yaml).
func TestC16ACallbackIsNeverPosted(t *testing.T) {
	g := newGround(t, consentSetup{})
	b := g.newBrowser()
	start := b.do(http.MethodPost, g.linkFor(acme), nil)
	require.NotContains(t, start.location, "response_mode", "the default of response_type=code is the query")
	require.NotContains(t, start.header.Get("Set-Cookie"), "SameSite=None")
	callback := g.visit(b, start.location)
	bare, query, _ := strings.Cut(callback, "?")
	form, err := url.ParseQuery(query)
	require.NoError(t, err)
	before := g.state()
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions, http.MethodTrace} {
		for _, target := range []string{bare, callback} {
			got := b.do(method, target, form, "Sec-Fetch-Site", "cross-site", "Origin", "null", "X-HTTP-Method-Override", "GET")
			require.Equal(t, http.StatusMethodNotAllowed, got.status, method)
			require.Equal(t, "GET", got.header.Get("Allow"))
			require.Empty(t, got.header.Get("Set-Cookie"))
		}
	}
	got := b.do(http.MethodGet, bare, form) // a body is not an answer
	g.requireRefusal(got, bare, http.StatusBadRequest, "This answer cannot be used")
	g.requireUntouched(before)
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
}

// What a provider writes beside an error reaches neither the page nor the log; the error itself is one of a closed list.
func TestC22TheProvidersWordsAreNotRepeated(t *testing.T) {
	g := newGround(t, consentSetup{})
	link := g.linkFor(acme)
	for _, words := range []string{
		"<script>alert('CANARY')</script>", `"><img src=x onerror=CANARY>`, "CANARY {{.Ticket}} ${env:CANARY}", "CANARY\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}",
		"CANARY\u2028\u202e\x1b[31m", strings.Repeat("CANARY ", 900), `CANARY","result":"connected`, "CANARY%0d%0aSet-Cookie: a=b",
	} {
		for _, code := range []string{"access_denied", "CANARY-<b>code", "x\" onload=\"CANARY", "CANARY','error':'", "0"} {
			b := g.newBrowser()
			denied := with(t, g.consent(b, link), "code", "", "error", code, "error_description", words, "error_uri", "https://CANARY.test/", "session_state", words)
			before, logged := g.state(), g.logs.String()
			page := g.refused(b, denied, http.StatusForbidden, "Graph was not connected")
			require.Equal(t, before.rows, g.dump("r"))
			require.NotContains(t, page.body, "forged")
			shown := "other"
			if code == "access_denied" {
				shown = code
			}
			require.Contains(t, page.body, "<code>"+shown+"</code>")
			line := strings.TrimPrefix(g.logs.String(), logged)
			require.Equal(t, 1, strings.Count(line, "\n"), "one callback, one line")
			require.Contains(t, line, `"result":"denied","org":"acme","by":"ops","reason":"`+shown+`"`)
			require.Less(t, len(line), 400)
		}
	}
}
