package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestWhatAJWTMayDo(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i, func(j *JWTIssuer) { j.IntegrationsClaim = []string{"roles"} }), func(b *bench, c *Config, r *Route) {
		r.OnlyOrgs = []tokenstore.Org{"acme", "globex", "initech"}
		c.Routes = []Route{{Integration: "Other", Prefix: "/other", Target: r.Target}}
		subject := func(s string) []Subject { return []Subject{{i.url, s}} }
		c.Callers = []Caller{
			{Name: "all", Subjects: subject("all"), Orgs: []string{"*", "@global"}, Integrations: []string{"*"}},
			{Name: "one", Subjects: subject("one"), Orgs: []string{"acme"}, Integrations: []string{"Other"}, Allow: []string{"GET /v1.0/**"}},
			{Name: "two", Subjects: subject("two"), Orgs: []string{"acme", "globex"}, Integrations: []string{"*"}},
		}
	})
	const ok, forbidden, required, invalid = "", "caller_forbidden", "org_required", "org_invalid"
	graph := []string{"Microsoft_Graph"}
	for name, row := range map[string]struct {
		sub                string
		org, roles         any // the claims; nil: absent
		target, id, scope  string
		code, sentForWhich string
	}{
		"the claim's org":                        {"x", "acme", graph, "/graph/x", "acme", "", ok, "acme"},
		"the claim's org by default":             {"x", "acme", graph, "/graph/x", "", "", ok, "acme"},
		"another org":                            {"x", "acme", graph, "/graph/x", "globex", "", forbidden, ""},
		"an org in other case":                   {"x", "acme", graph, "/graph/x", "ACME", "", forbidden, ""},
		"an org that is none":                    {"x", "acme", graph, "/graph/x", "a/b", "", invalid, ""},
		"the global connection":                  {"x", "acme", graph, "/graph/x", "", "global", forbidden, ""},
		"one of two orgs":                        {"x", []string{"acme", "globex"}, graph, "/graph/x", "globex", "", ok, "globex"},
		"two orgs and none named":                {"x", []string{"acme", "globex"}, graph, "/graph/x", "", "", required, ""},
		"neither of two orgs":                    {"x", []string{"acme", "globex"}, graph, "/graph/x", "initech", "", forbidden, ""},
		"an org outside only_orgs":               {"x", "umbrella", graph, "/graph/x", "umbrella", "", forbidden, ""},
		"no org claim":                           {"x", nil, graph, "/graph/x", "acme", "", forbidden, ""},
		"no org claim and no org named":          {"x", nil, graph, "/graph/x", "", "", forbidden, ""},
		"every org in a claim":                   {"x", "*", graph, "/graph/x", "acme", "", forbidden, ""},
		"global in a claim":                      {"x", "@global", graph, "/graph/x", "", "global", forbidden, ""},
		"global beside an org in a claim":        {"x", []string{"acme", "@global"}, graph, "/graph/x", "", "global", forbidden, ""},
		"every org beside an org in a claim":     {"x", []string{"*", "acme"}, graph, "/graph/x", "globex", "", forbidden, ""},
		"an org claim that is a number":          {"x", 7, graph, "/graph/x", "7", "", forbidden, ""},
		"a list of orgs with a number":           {"x", []any{"acme", 7}, graph, "/graph/x", "acme", "", forbidden, ""},
		"an org claim that is an object":         {"x", map[string]any{"acme": "acme"}, graph, "/graph/x", "acme", "", forbidden, ""},
		"an org claim that is null":              {"x", []any{nil}, graph, "/graph/x", "acme", "", forbidden, ""},
		"an org claim with spaces":               {"x", " acme", graph, "/graph/x", "acme", "", forbidden, ""},
		"an empty org claim":                     {"x", "", graph, "/graph/x", "", "", forbidden, ""},
		"another integration":                    {"x", "acme", graph, "/other/x", "acme", "", forbidden, ""},
		"an integration claim that is text":      {"x", "acme", "Other", "/other/x", "acme", "", ok, "acme"},
		"no integration claim":                   {"x", "acme", nil, "/graph/x", "acme", "", forbidden, ""},
		"every integration in a claim":           {"x", "acme", "*", "/graph/x", "acme", "", forbidden, ""},
		"an integration claim with a number":     {"x", "acme", []any{"Microsoft_Graph", 7}, "/graph/x", "acme", "", forbidden, ""},
		"a subject's rights":                     {"all", nil, nil, "/graph/x", "initech", "", ok, "initech"},
		"a subject's right to global":            {"all", nil, nil, "/graph/x", "", "global", ok, "@global"},
		"a subject's org by default":             {"one", nil, nil, "/other/v1.0/x", "", "", ok, "acme"},
		"a subject's integrations, not claims'":  {"one", nil, graph, "/graph/v1.0/x", "acme", "", forbidden, ""},
		"a subject's rules":                      {"one", nil, nil, "/other/beta", "acme", "", forbidden, ""},
		"a subject within its claim":             {"all", "globex", nil, "/graph/x", "", "", ok, "globex"},
		"a subject outside its claim":            {"all", "globex", nil, "/graph/x", "acme", "", forbidden, ""},
		"a claim takes global away":              {"all", "globex", nil, "/graph/x", "", "global", forbidden, ""},
		"a claim of every org takes all away":    {"all", "*", nil, "/graph/x", "acme", "", forbidden, ""},
		"a claim of two leaves what both have":   {"two", []string{"globex", "initech"}, nil, "/graph/x", "", "", ok, "globex"},
		"a claim gives a subject no org":         {"two", []string{"globex", "initech"}, nil, "/graph/x", "initech", "", forbidden, ""},
		"a claim without an org of the subject":  {"one", "globex", nil, "/other/v1.0/x", "", "", forbidden, ""},
		"a subject within both claims":           {"all", "globex", graph, "/graph/x", "", "", ok, "globex"},
		"an integration takes none of the orgs":  {"all", nil, graph, "/graph/x", "initech", "", ok, "initech"},
		"an integration leaves global":           {"all", nil, graph, "/graph/x", "", "global", ok, "@global"},
		"a subject outside its integrations":     {"all", nil, graph, "/other/x", "acme", "", forbidden, ""},
		"one integration of all, as text":        {"all", nil, "Other", "/other/x", "acme", "", ok, "acme"},
		"two integrations leave what both have":  {"one", nil, []string{"Microsoft_Graph", "Other"}, "/other/v1.0/x", "acme", "", ok, "acme"},
		"a claim gives no integration":           {"one", nil, []string{"Microsoft_Graph", "Other"}, "/graph/v1.0/x", "acme", "", forbidden, ""},
		"without an integration of the subject":  {"one", nil, graph, "/other/v1.0/x", "acme", "", forbidden, ""},
		"a subject's rules within its claim":     {"one", nil, "Other", "/other/beta", "acme", "", forbidden, ""},
		"every integration takes all away":       {"all", nil, "*", "/graph/x", "acme", "", forbidden, ""},
		"no integration takes all away":          {"all", nil, []string{}, "/graph/x", "acme", "", forbidden, ""},
		"a number among a subject's":             {"all", nil, []any{"Microsoft_Graph", 7}, "/graph/x", "acme", "", forbidden, ""},
		"an integration in other case":           {"all", nil, "microsoft_graph", "/graph/x", "acme", "", forbidden, ""},
		"a subject in other case is another one": {"ALL", nil, nil, "/graph/x", "acme", "", forbidden, ""},
	} {
		t.Run(name, func(t *testing.T) {
			headers := []string{"X-Org-ID: " + row.id}
			if row.scope != "" {
				headers = append(headers, "X-Org-Scope: "+row.scope)
			}
			before := len(b.requests())
			token := i.token(t, key, map[string]any{"sub": row.sub, "tid": row.org, "roles": row.roles})
			res, body := b.get(t, row.target, append(headers, "Authorization: Bearer "+token)...)
			require.Equal(t, row.code, res.Header.Get("X-Bifrost-Error"), body)
			if row.code != ok {
				require.Len(t, b.requests(), before)
				return
			}
			require.Equal(t, 200, res.StatusCode, body)
			require.Equal(t, []string{tokenOf(tokenstore.Org(row.sentForWhich))}, b.last(t).Header["Authorization"])
		})
	}
}

// A claim's name may have dots and slashes itself: the levels are a list.
func TestClaimsMayBeNested(t *testing.T) {
	key := newSigningKey(t, "one")
	for name, row := range map[string]struct {
		path   []string
		claims map[string]any
		status int
	}{
		"as Kubernetes nests":         {[]string{"kubernetes.io", "namespace"}, map[string]any{"kubernetes.io": map[string]any{"namespace": "acme"}}, 200},
		"a URL, as Auth0 names":       {[]string{"https://a.test/org"}, map[string]any{"https://a.test/org": "acme"}, 200},
		"dots part no levels":         {[]string{"a.b"}, map[string]any{"a": map[string]any{"b": "acme"}}, 403},
		"names in other case":         {[]string{"Org"}, map[string]any{"org": "acme"}, 403},
		"a path that ends too early":  {[]string{"a", "b"}, map[string]any{"a": "acme"}, 403},
		"a path through a list":       {[]string{"a", "0"}, map[string]any{"a": []string{"acme"}}, 403},
		"a path that ends in objects": {[]string{"a"}, map[string]any{"a": map[string]any{"b": "acme"}}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			i := newKeyIssuer(key).serve(t)
			b := start(t, nil, withIssuer(i, func(j *JWTIssuer) { j.OrgClaim = row.path }))
			res, _ := b.bearer(t, i.token(t, key, row.claims), "X-Org-ID: acme")
			require.Equal(t, row.status, res.StatusCode)
		})
	}
}

// Without a claim for the org only those have rights whom an entry of callers names, whatever the token says.
func TestWithoutAnOrgClaimOnlySubjectsHaveRights(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i, func(j *JWTIssuer) { j.OrgClaim = nil }), onConfig(func(c *Config) {
		c.Callers[0].Subjects = []Subject{{i.url, "pod"}}
	}))
	res, _ := b.bearer(t, i.token(t, key, map[string]any{"sub": "pod", "tid": "globex"}), "X-Org-ID: acme")
	require.Equal(t, 200, res.StatusCode, "tid is no claim that counts")
	res, _ = b.bearer(t, i.token(t, key, map[string]any{"sub": "other"}), "X-Org-ID: acme")
	require.Equal(t, 403, res.StatusCode)
}

// The claim that names integrations is one by itself: without one for the org it narrows those whom an entry of callers names.
func TestAnIntegrationsClaimAloneNarrowsSubjects(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i, func(j *JWTIssuer) { j.OrgClaim, j.IntegrationsClaim = nil, []string{"roles"} }), onConfig(func(c *Config) {
		c.Callers[0].Subjects = []Subject{{i.url, "pod"}}
	}))
	for role, status := range map[string]int{"Microsoft_Graph": 200, "Other": 403} {
		res, _ := b.bearer(t, i.token(t, key, map[string]any{"sub": "pod", "tid": nil, "roles": role}), "X-Org-ID: acme")
		require.Equal(t, status, res.StatusCode, role)
		res, _ = b.bearer(t, i.token(t, key, map[string]any{"sub": "other", "tid": "acme", "roles": role}), "X-Org-ID: acme")
		require.Equal(t, 403, res.StatusCode, "nobody's")
	}
}

// Two issuers may have subjects and kids of the same name.
func TestASubjectIsOneIssuersAlone(t *testing.T) {
	mine, theirs := newSigningKey(t, "one"), newSigningKey(t, "one")
	ours, other := newKeyIssuer(mine).serve(t), newKeyIssuer(theirs).serve(t)
	b := start(t, nil, withIssuer(ours), withIssuer(other), onConfig(func(c *Config) {
		c.Callers[0].Subjects = []Subject{{ours.url, "pod"}}
	}))
	as := func(i *keyIssuer, k signingKey) int {
		res, _ := b.bearer(t, i.token(t, k, map[string]any{"sub": "pod", "tid": nil}), "X-Org-ID: acme")
		return res.StatusCode
	}
	require.Equal(t, 200, as(ours, mine))
	require.Equal(t, 403, as(other, theirs), "a caller, but nobody's")
	require.Equal(t, 401, as(ours, theirs))
	require.Equal(t, 401, as(other, mine))
}

func TestARefusedJWTCannotTellWhichOrgsExist(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i))
	token := i.token(t, key, nil)
	bodies := make(map[string]bool)
	for _, org := range []string{"globex", "no-such-org"} {
		res, body := b.bearer(t, token, "X-Org-ID: "+org, "X-Request-ID: same")
		require.Equal(t, 403, res.StatusCode)
		bodies[body] = true
	}
	require.Len(t, bodies, 1)
	require.Zero(t, b.broker.asked.Load())
}

// Each subject has a share of its own, under a name that no entry of callers can have; the subjects of an entry share its own.
func TestLimitsPerCallerCountSubjects(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i), onRoute(func(r *Route) { r.Limits.PerCaller = Quota{Rate: 0.001, Burst: 1} }), onConfig(func(c *Config) {
		c.Callers[0].Subjects = []Subject{{i.url, "pod-1"}, {i.url, "pod-2"}}
	}))
	as := func(sub string) int {
		res, _ := b.bearer(t, i.token(t, key, map[string]any{"sub": sub}))
		return res.StatusCode
	}
	require.Equal(t, 200, as("a"))
	require.Equal(t, 429, as("a"))
	require.Equal(t, 200, as("b"))
	require.Equal(t, 200, as("workflows"), "no entry's name")
	require.Equal(t, 200, as("pod-1"))
	require.Equal(t, 429, as("pod-2"))
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 429, res.StatusCode, "the key of the same entry")
}

func TestNarrowingLeavesTheClaimsAsTheyAre(t *testing.T) {
	c := &claims{limited: true, integrations: []string{"mail", "graph"}}
	who := &caller{integrations: []string{"graph"}}
	for range 2 { // a reload narrows by the same claims again
		require.Equal(t, []string{"graph"}, who.within(c).integrations)
		require.Equal(t, []string{"mail", "graph"}, c.integrations)
	}
}
