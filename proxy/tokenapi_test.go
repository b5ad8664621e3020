package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const tokenURL = "/_bifrost/v1/integrations/Microsoft_Graph"

// exposed lets the one caller read the tokens of the one integration.
func exposed(_ *bench, c *Config, r *Route) {
	c.Callers[0].MayReadTokens, r.ExposeToken = true, true
}

// realBroker puts an authflow.Broker behind the proxy, at which acme, globex and the global connection are connected, and
// returns its provider. A user of the provider is called as the org that he consented for.
func (b *bench) realBroker(t *testing.T) *authflowtest.Provider {
	t.Helper()
	idp := authflowtest.InMemory(t, authflowtest.Config{})
	broker, err := authflow.New(authflow.Config{
		Store: storetest.OpenFile(t),
		Integrations: []*authflow.Integration{{
			Name: "Microsoft_Graph", ClientID: idp.ClientID(), ClientSecret: idp.ClientSecret, Fallback: true, Scopes: []string{"read", "write"},
			Resolve: func(org tokenstore.Org) (authflow.Endpoints, error) {
				entity := map[tokenstore.Org]string{"acme": "acme.example", tokenstore.Global: "common"}[org]
				return authflow.Endpoints{TokenURL: idp.TokenURL, EntityID: entity}, nil
			},
		}},
		PublicURL: "https://bifrost.test", Transport: idp.Transport(), Metrics: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, broker.Wait(context.Background())) })
	for _, org := range []tokenstore.Org{"acme", "globex", tokenstore.Global} {
		slot := tokenstore.Slot{Integration: "Microsoft_Graph", Org: org}
		_, err := broker.Import(t.Context(), slot, idp.Issue(string(org), "read").Refresh, "tester")
		require.NoError(t, err)
	}
	b.broker.token = broker.Token
	return idp
}

// tokenBody is the answer as a caller reads it.
type tokenBody struct {
	Name       string
	Org        *string
	Connection string
	EntityID   *string `json:"entity_id"`
	OAuth      struct {
		AccessToken string     `json:"access_token"`
		TokenType   string     `json:"token_type"`
		ExpiresAt   *time.Time `json:"expires_at"`
		Scopes      []string
	}
}

func TestACallerReadsTheTokenOfTheConnectionThatItAsksFor(t *testing.T) {
	b := start(t, nil, exposed)
	idp := b.realBroker(t)
	for name, row := range map[string]struct {
		headers          []string
		org, entity      any
		connection, user string
	}{
		"an org":                      {[]string{"X-Org-ID: acme"}, "acme", "acme.example", "org", "acme"},
		"another org":                 {[]string{"X-Org-ID: globex"}, "globex", nil, "org", "globex"},
		"an org that never connected": {[]string{"X-Org-ID: umbrella"}, "umbrella", "common", "global", "@global"},
		"global":                      {[]string{"X-Org-ID: ", "X-Org-Scope: global"}, nil, "common", "global", "@global"},
	} {
		t.Run(name, func(t *testing.T) {
			res, text := b.get(t, tokenURL, append(row.headers, "X-Request-ID: request-1")...)
			require.Equal(t, 200, res.StatusCode, text)
			require.Equal(t, []string{"application/json"}, res.Header.Values("Content-Type"))
			require.Equal(t, []string{"no-store"}, res.Header.Values("Cache-Control"))
			require.Equal(t, []string{"request-1"}, res.Header.Values("X-Request-ID"))
			require.Equal(t, []string{row.connection}, res.Header.Values("X-Bifrost-Connection"))
			require.Empty(t, res.Header.Values("X-Bifrost-Error"))

			var got tokenBody
			require.NoError(t, json.Unmarshal([]byte(text), &got))
			token, known := idp.Lookup(got.OAuth.AccessToken)
			require.True(t, known)
			require.Equal(t, authflowtest.Access, token.Kind)
			require.Equal(t, row.user, token.User, "whose token it is")
			require.NotNil(t, got.OAuth.ExpiresAt)
			require.WithinDuration(t, time.Now().Add(time.Hour), *got.OAuth.ExpiresAt, time.Minute)
			want, err := json.Marshal(map[string]any{
				"name": "Microsoft_Graph", "org": row.org, "connection": row.connection, "entity_id": row.entity,
				"oauth": map[string]any{
					"access_token": got.OAuth.AccessToken, "token_type": "Bearer", "scopes": []string{"read"},
					"expires_at": got.OAuth.ExpiresAt.UTC().Format("2006-01-02T15:04:05Z"),
				},
			})
			require.NoError(t, err)
			require.JSONEq(t, string(want), text, "this and nothing else")
		})
	}
	require.Empty(t, b.requests(), "the upstream has no part in it")
}

func TestWhatIsNotKnownOfATokenIsNull(t *testing.T) {
	b := start(t, nil, exposed)
	_, text := b.get(t, tokenURL)
	require.JSONEq(t, `{"name": "Microsoft_Graph", "org": "acme", "connection": "org", "entity_id": null,
		"oauth": {"access_token": "CANARY-token-acme", "token_type": "Bearer", "expires_at": null, "scopes": []}}`, text)
}

func TestWhoMayReadTokens(t *testing.T) {
	b := start(t, nil, func(b *bench, c *Config, r *Route) {
		r.ExposeToken, r.OnlyOrgs = true, []tokenstore.Org{"acme", "globex"}
		r.Methods, r.Deny = []string{"POST"}, []string{"* /**"} // for what goes through the proxy
		c.Routes = []Route{
			{Integration: "Closed", Prefix: "/closed", Target: r.Target},
			{Integration: "Other", Prefix: "/other", Target: r.Target, ExposeToken: true},
		}
		add := func(name string, may bool, orgs, integrations []string, allow ...string) {
			c.Callers = append(c.Callers, Caller{
				Name: name, Key: func() string { return name }, Orgs: orgs, Integrations: integrations, Allow: allow, MayReadTokens: may,
			})
		}
		all := []string{"*"}
		add("all", true, []string{"*", "@global"}, all)
		add("orgs", true, all, all)
		add("one", true, []string{"acme"}, []string{"Microsoft_Graph"})
		add("plain", false, []string{"*", "@global"}, all)
		add("ruled", true, []string{"acme"}, all, "GET /v1.0/**")
		add("everything by rule", true, []string{"acme"}, all, "* /**")
	})
	const graph, closed, other, none = "Microsoft_Graph", "Closed", "Other", "None"
	for name, row := range map[string]struct {
		method, integration, key, org, scope string
		status                               int
		code                                 string
	}{
		"any org":                             {"GET", graph, "all", "acme", "", 200, ""},
		"global":                              {"GET", graph, "all", "", "global", 200, ""},
		"its one org by default":              {"GET", graph, "one", "", "", 200, ""},
		"only_orgs is per integration":        {"GET", other, "all", "umbrella", "", 200, ""},
		"a caller without the right":          {"GET", graph, "plain", "acme", "", 403, "caller_forbidden"},
		"the same for global":                 {"GET", graph, "plain", "", "global", 403, "caller_forbidden"},
		"the same without an org":             {"GET", graph, "plain", "", "", 403, "caller_forbidden"},
		"the same with another method":        {"POST", graph, "plain", "acme", "", 403, "caller_forbidden"},
		"an integration that is not exposed":  {"GET", closed, "all", "acme", "", 403, "caller_forbidden"},
		"neither":                             {"GET", closed, "plain", "acme", "", 403, "caller_forbidden"},
		"a caller with rules":                 {"GET", graph, "ruled", "acme", "", 403, "caller_forbidden"},
		"a caller whose rules allow all":      {"GET", graph, "everything by rule", "acme", "", 403, "caller_forbidden"},
		"another's org":                       {"GET", graph, "one", "globex", "", 403, "caller_forbidden"},
		"another's integration":               {"GET", other, "one", "acme", "", 403, "caller_forbidden"},
		"another's integration, not exposed":  {"GET", closed, "one", "acme", "", 403, "caller_forbidden"},
		"all orgs do not mean global":         {"GET", graph, "orgs", "", "global", 403, "caller_forbidden"},
		"an org outside only_orgs":            {"GET", graph, "all", "umbrella", "", 403, "caller_forbidden"},
		"an integration that there is not":    {"GET", none, "all", "acme", "", 404, "unknown_route"},
		"the same for whoever may read none":  {"GET", none, "plain", "acme", "", 404, "unknown_route"},
		"no org":                              {"GET", graph, "all", "", "", 400, "org_required"},
		"a malformed org":                     {"GET", graph, "all", "a/b", "", 400, "org_invalid"},
		"the global connection's own name":    {"GET", graph, "all", "@global", "", 400, "org_invalid"},
		"another scope":                       {"GET", graph, "all", "", "all", 400, "org_invalid"},
		"an org and global":                   {"GET", graph, "all", "acme", "global", 400, "org_invalid"},
		"HEAD":                                {"HEAD", graph, "all", "acme", "", 405, "method_not_allowed"},
		"POST, which the integration has":     {"POST", graph, "all", "acme", "", 405, "method_not_allowed"},
		"PUT":                                 {"PUT", graph, "all", "acme", "", 405, "method_not_allowed"},
		"DELETE":                              {"DELETE", graph, "all", "acme", "", 405, "method_not_allowed"},
		"OPTIONS":                             {"OPTIONS", graph, "all", "acme", "", 405, "method_not_allowed"},
		"a method of nobody's":                {"get", graph, "all", "acme", "", 405, "method_not_allowed"},
		"TRACE":                               {"TRACE", graph, "all", "acme", "", 405, "method_not_allowed"},
		"no key":                              {"GET", graph, "", "acme", "", 401, "caller_unauthenticated"},
		"a wrong key":                         {"GET", graph, "wrong", "acme", "", 401, "caller_unauthenticated"},
		"a wrong key and nothing to be found": {"GET", none, "wrong", "acme", "", 401, "caller_unauthenticated"},
		"a wrong key and another method":      {"POST", graph, "wrong", "acme", "", 401, "caller_unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := b.broker.asked.Load()
			headers := []string{"Authorization: ", "X-Bifrost-Key: " + row.key, "X-Org-ID: " + row.org, "X-Org-Scope: " + row.scope}
			res, text := b.do(t, b.request(t, row.method, "/_bifrost/v1/integrations/"+row.integration, "", headers...))
			require.Equal(t, row.status, res.StatusCode, text)
			require.Equal(t, row.code, res.Header.Get("X-Bifrost-Error"))
			if row.status == 200 {
				require.Contains(t, text, "CANARY-token-")
				return
			}
			require.Equal(t, asked, b.broker.asked.Load(), "refused before any look at the store")
			require.NotContains(t, text, "CANARY")
			if row.status == 405 && row.method != "TRACE" {
				require.Equal(t, []string{"GET"}, res.Header.Values("Allow"))
			}
		})
	}
	require.Empty(t, b.requests())
}

func TestWhoMayNotReadATokenCannotTellWhichOrgsExist(t *testing.T) {
	b := start(t, nil, exposed, onConfig(func(c *Config) { c.Callers[0].Orgs = []string{"acme"} }))
	b.realBroker(t)
	answers := make(map[string]bool)
	for _, org := range []string{"globex", "no-such-org"} {
		res, body := b.get(t, tokenURL, "X-Org-ID: "+org, "X-Request-ID: same")
		require.Equal(t, 403, res.StatusCode)
		res.Header.Del("Date")
		var head strings.Builder
		require.NoError(t, res.Header.Write(&head))
		answers[head.String()+body] = true
	}
	require.Len(t, answers, 1)
}

func TestWithoutCallersNobodyReadsTokens(t *testing.T) {
	for _, open := range []bool{true, false} {
		b := start(t, nil, exposed, onConfig(func(c *Config) { c.Callers, c.Open = nil, open }))
		for _, headers := range [][]string{nil, {"X-Org-ID: ", "X-Org-Scope: global"}, {"X-Org-ID: "}, {"Sec-Fetch-Site: cross-site"}} {
			res, body := b.get(t, tokenURL, headers...)
			requireProblem(t, res, body, 403, "caller_forbidden")
		}
		res, _ := b.get(t, "/_bifrost/v1/integrations/None")
		require.Equal(t, 404, res.StatusCode)
		require.Zero(t, b.broker.asked.Load())
	}
}

func TestOnlyTheExactPathGivesAToken(t *testing.T) {
	b := start(t, nil, exposed, onConfig(func(c *Config) {
		c.Routes = []Route{{Integration: "v1.0", Hosts: []string{"v1.internal"}, ExposeToken: true, Target: func(tokenstore.Org) (Target, error) {
			return Target{BaseURL: "https://v1.example"}, nil
		}}}
	}))
	for target, status := range map[string]int{
		tokenURL:                                        200,
		tokenURL + "?":                                  200,
		tokenURL + "?org=globex&scope=all":              200,
		"/_bifrost/v1/integrations/v1.0":                200,
		"http://127.0.0.1" + tokenURL:                   200,
		tokenURL + "/":                                  404,
		tokenURL + "/x":                                 404,
		tokenURL + ";x=y":                               404,
		tokenURL + "%20":                                404,
		"/_bifrost/v1/integrations/microsoft_graph":     404,
		"/_bifrost/v1/integrations/Microsoft%5fGraph":   404,
		"/_bifrost/v1/integrations/%4dicrosoft_Graph":   404,
		"/_bifrost/v1/integrations//Microsoft_Graph":    404,
		"/_bifrost/v1/integrations%2fMicrosoft_Graph":   404,
		"/_bifrost/v1/integrations/":                    404,
		"/_bifrost/v1/integrations":                     404,
		"/_bifrost/v2/integrations/Microsoft_Graph":     404,
		"/_bifrost//v1/integrations/Microsoft_Graph":    404,
		"/_bifrost/":                                    404,
		"/_bifrost":                                     404,
		"/_bifrostx/v1/integrations/Microsoft_Graph":    404,
		"/_BIFROST/v1/integrations/Microsoft_Graph":     404,
		"/%5fbifrost/v1/integrations/Microsoft_Graph":   404,
		"/_bifrost%2fv1/integrations/Microsoft_Graph":   404,
		"/_bifrost/v1/integrations/../Microsoft_Graph":  400,
		"/_bifrost/v1/integrations/%2e/Microsoft_Graph": 400,
		"/_bifrost/v1/integrations/%252e%252e":          400,
		"/_bifrost/v1/integrations/.":                   400,
		"/_bifrost/v1\\integrations/Microsoft_Graph":    400,
		"//_bifrost/v1/integrations/Microsoft_Graph":    400,
		tokenURL + "#x":                                 400,
		"http://evil.example" + tokenURL:                400,
	} {
		res := b.raw(t, line("GET", target))
		require.Equal(t, status, res.StatusCode, target)
		want := map[int]string{200: "", 400: "bad_request", 404: "unknown_route"}[status]
		require.Equal(t, want, res.Header.Get("X-Bifrost-Error"), target)
	}
	require.Empty(t, b.requests())
}

func TestTheReservedPathEndsOnASegmentBorder(t *testing.T) {
	b := start(t, nil, exposed, onRoute(func(r *Route) { r.Prefix = "/_bifrostx" }))
	res, body := b.get(t, "/_bifrostx/v1/integrations/Microsoft_Graph")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "ok", body)

	b = start(t, nil, exposed, onRoute(func(r *Route) { r.Prefix = "/" }))
	res, body = b.get(t, "/_bifrost/x")
	requireProblem(t, res, body, 404, "unknown_route")
	require.Empty(t, b.requests())
}

// A Host of an integration goes to its upstream whole, whatever the path says.
func TestAHostOfAnIntegrationHasNoTokenAPI(t *testing.T) {
	b := start(t, nil, exposed, onRoute(func(r *Route) { r.Hosts = []string{"graph.internal"} }))
	r := b.request(t, "GET", tokenURL, "")
	r.Host = "graph.internal"
	res, body := b.do(t, r)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "ok", body)
	require.Equal(t, tokenURL, b.last(t).RequestURI)
	require.Equal(t, "/graph", b.events(t, 1)[0]["route"])
}

func TestATokenThatCannotBeHadFailsAsARequestDoes(t *testing.T) {
	for _, reason := range []error{
		authflow.ErrNotConnected, authflow.ErrUnresolved, authflow.ErrReconnect, authflow.ErrPending, authflow.ErrProvider, authflow.ErrClient,
		authflow.ErrStore, authflow.ErrUnreadable, authflow.ErrUnknownIntegration,
	} {
		t.Run(reason.Error(), func(t *testing.T) {
			b := start(t, nil, exposed, onConfig(func(c *Config) {
				c.ConnectURL = func(s tokenstore.Slot) string { return "https://auth.example/" + s.String() }
			}))
			b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
				return authflow.Credential{}, &authflow.Error{Reason: reason, Slot: slot, Detail: "In other words.", RetryAfter: 1200 * time.Millisecond}
			}
			proxied, want := b.get(t, "/graph/x", "X-Request-ID: same")
			res, body := b.get(t, tokenURL, "X-Request-ID: same")
			require.Equal(t, want, body)
			require.Equal(t, proxied.StatusCode, res.StatusCode)
			proxied.Header.Del("Date")
			res.Header.Del("Date")
			require.Equal(t, proxied.Header, res.Header)
			requireProblem(t, res, body, proxied.StatusCode, proxied.Header.Get("X-Bifrost-Error"))
		})
	}
}

func TestAnEmptyTokenIsNoToken(t *testing.T) {
	b := start(t, nil, exposed)
	b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
		return authflow.NewCredential(slot, "Bearer "), nil
	}
	res, body := b.get(t, tokenURL)
	requireProblem(t, res, body, 503, "record_unreadable")
}

func TestATokenThatWasReadIsOneLineAndCounted(t *testing.T) {
	b := start(t, nil, exposed)
	b.get(t, tokenURL+"?CANARY-query", "X-Request-ID: first")
	b.do(t, b.request(t, "POST", tokenURL, "CANARY-body", "X-Request-ID: second"))
	b.get(t, "/_bifrost/v1/integrations/CANARY", "X-Request-ID: third")
	lines := b.events(t, 3)
	for _, l := range lines {
		for _, name := range []string{"time", "duration", "level", "msg"} {
			delete(l, name)
		}
	}
	require.Equal(t, []map[string]any{
		{"request_id": "first", "method": "GET", "route": "/_bifrost", "integration": "Microsoft_Graph", "org": "acme", "connection": "org", "status": 200.0, "code": ""},
		{"request_id": "second", "method": "POST", "route": "/_bifrost", "integration": "Microsoft_Graph", "org": "", "connection": "", "status": 405.0, "code": "method_not_allowed"},
		{"request_id": "third", "method": "GET", "route": "/_bifrost", "integration": "", "org": "", "connection": "", "status": 404.0, "code": "unknown_route"},
	}, lines)
	require.NotContains(t, b.logs.String(), "CANARY")
	require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(`
# HELP bifrost_requests_total Proxied requests by HTTP status code and who made the answer (upstream or proxy).
# TYPE bifrost_requests_total counter
bifrost_requests_total{code="200",integration="Microsoft_Graph",origin="proxy"} 1
bifrost_requests_total{code="404",integration="",origin="proxy"} 1
bifrost_requests_total{code="405",integration="Microsoft_Graph",origin="proxy"} 1
`), "bifrost_requests_total"))
	require.Equal(t, 1.0, testutil.ToFloat64(b.proxy.metrics.errors.WithLabelValues("Microsoft_Graph", "method_not_allowed")))
	require.Zero(t, testutil.ToFloat64(b.proxy.metrics.inFlight))
}

func TestAnIntegrationIsThereOnce(t *testing.T) {
	to := func(tokenstore.Org) (Target, error) { return Target{}, nil }
	_, err := New(Config{Broker: &fakeBroker{}, Routes: []Route{
		{Integration: "a", Prefix: "/a", Target: to, ExposeToken: true}, {Integration: "a", Prefix: "/b", Target: to},
	}})
	require.ErrorContains(t, err, "integration a is there twice")
}

func TestAMethodsListIsOfThePathAlone(t *testing.T) {
	b := start(t, nil, exposed, onRoute(func(r *Route) { r.Methods = []string{"POST"} }))
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 405, res.StatusCode)
	require.Equal(t, []string{"POST"}, res.Header[http.CanonicalHeaderKey("allow")])
	res, _ = b.get(t, tokenURL)
	require.Equal(t, 200, res.StatusCode)
}
