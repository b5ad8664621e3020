package proxy

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func basic(user, password string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestWhereACallersKeyCounts(t *testing.T) {
	b := start(t, nil)
	for name, row := range map[string]struct {
		headers []string
		status  int
	}{
		"bearer":                     {[]string{"Authorization: Bearer " + callerKey}, 200},
		"bearer in other case":       {[]string{"Authorization: bEARER " + callerKey}, 200},
		"token":                      {[]string{"Authorization: token " + callerKey}, 200},
		"basic password":             {[]string{basic("x", callerKey)}, 200},
		"basic user":                 {[]string{basic(callerKey, "")}, 200},
		"basic user with a password": {[]string{basic(callerKey, "x")}, 200},
		"own header":                 {[]string{"Authorization: ", "X-Bifrost-Key: " + callerKey}, 200},
		"own header wins":            {[]string{"Authorization: Bearer wrong", "X-Bifrost-Key: " + callerKey}, 200},
		"own header wins when wrong": {[]string{"Authorization: Bearer " + callerKey, "X-Bifrost-Key: wrong"}, 401},
		"nothing":                    {[]string{"Authorization: "}, 401},
		"wrong key":                  {[]string{"Authorization: Bearer CANARY-wrong"}, 401},
		"beginning of the key":       {[]string{"Authorization: Bearer " + callerKey[:10]}, 401},
		"endless key":                {[]string{"Authorization: Bearer " + strings.Repeat("k", 5000)}, 401},
		"key without a scheme":       {[]string{"Authorization: " + callerKey}, 401},
		"other scheme":               {[]string{"Authorization: Digest " + callerKey}, 401},
		"basic that is no base64":    {[]string{"Authorization: Basic !!!"}, 401},
		"basic without key":          {[]string{basic("", "")}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(b.requests())
			res, _ := b.get(t, "/graph/x", row.headers...)
			require.Equal(t, row.status, res.StatusCode)
			if row.status == 401 {
				require.Equal(t, "caller_unauthenticated", res.Header.Get("X-Bifrost-Error"))
				require.NotEmpty(t, res.Header.Get("WWW-Authenticate"))
				require.Len(t, b.requests(), before)
				return
			}
			require.Equal(t, []string{tokenOf("acme")}, b.last(t).Header["Authorization"])
		})
	}
	require.NotContains(t, b.logs.String(), "CANARY")
}

func TestWhatACallerMayDo(t *testing.T) {
	b := start(t, nil, func(b *bench, c *Config, r *Route) {
		r.OnlyOrgs = []tokenstore.Org{"acme", "globex", "initech"}
		r.Deny = []string{"* /admin/**"}
		c.Routes = []Route{{Integration: "Other", Prefix: "/other", Target: r.Target}}
		key := func(k string) func() string { return func() string { return k } }
		c.Callers = []Caller{
			{Name: "all", Key: key("all"), Orgs: []string{"*"}, Integrations: []string{"*"}},
			{Name: "one", Key: key("one"), Orgs: []string{"acme", "@global"}, Integrations: []string{"Microsoft_Graph"}, Allow: []string{"GET /v1.0/**", "POST /v1.0/users/*/sendMail"}},
			{Name: "two", Key: key("two"), Orgs: []string{"acme", "globex"}, Integrations: []string{"*"}},
			{Name: "global", Key: key("global"), Orgs: []string{"@global"}, Integrations: []string{"*"}},
		}
	})
	for name, row := range map[string]struct {
		method, target, key, org, scope string
		status                          int
		code                            string
	}{
		"any org":                                    {"GET", "/graph/x", "all", "globex", "", 200, ""},
		"org outside only_orgs":                      {"GET", "/graph/x", "all", "umbrella", "", 403, "caller_forbidden"},
		"only_orgs is per integration":               {"GET", "/other/x", "all", "umbrella", "", 200, ""},
		"all orgs do not mean global":                {"GET", "/graph/x", "all", "", "global", 403, "caller_forbidden"},
		"global with the right":                      {"GET", "/graph/v1.0/x", "one", "", "global", 200, ""},
		"its one org by default":                     {"GET", "/graph/v1.0/x", "one", "", "", 200, ""},
		"another org":                                {"GET", "/graph/v1.0/x", "one", "globex", "", 403, "caller_forbidden"},
		"another integration":                        {"GET", "/other/v1.0/x", "one", "acme", "", 403, "caller_forbidden"},
		"method nobody may use, another integration": {"PROPFIND", "/other/v1.0/x", "one", "acme", "", 403, "caller_forbidden"},
		"no org, another integration":                {"GET", "/other/v1.0/x", "one", "", "", 403, "caller_forbidden"},
		"another path":                               {"GET", "/graph/beta/x", "one", "acme", "", 403, "caller_forbidden"},
		"another method":                             {"DELETE", "/graph/v1.0/x", "one", "acme", "", 403, "caller_forbidden"},
		"one segment in between":                     {"POST", "/graph/v1.0/users/7/sendMail", "one", "acme", "", 200, ""},
		"two segments in between":                    {"POST", "/graph/v1.0/users/7/8/sendMail", "one", "acme", "", 403, "caller_forbidden"},
		"two orgs and none named":                    {"GET", "/graph/x", "two", "", "", 400, "org_required"},
		"all orgs and none named":                    {"GET", "/graph/x", "all", "", "", 400, "org_required"},
		"omitted is never global":                    {"GET", "/graph/x", "global", "", "", 400, "org_required"},
		"scope of another name":                      {"GET", "/graph/x", "all", "", "Global", 400, "org_invalid"},
		"path that the integration denies":           {"GET", "/graph/admin/x", "all", "acme", "", 403, "caller_forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := b.broker.asked.Load()
			headers := []string{"X-Bifrost-Key: " + row.key, "X-Org-ID: " + row.org}
			if row.scope != "" {
				headers = append(headers, "X-Org-Scope: "+row.scope)
			}
			res, _ := b.do(t, b.request(t, row.method, row.target, "", headers...))
			require.Equal(t, row.status, res.StatusCode)
			require.Equal(t, row.code, res.Header.Get("X-Bifrost-Error"))
			if row.code != "" {
				require.Equal(t, asked, b.broker.asked.Load(), "refused before any look at the store")
			}
		})
	}
}

func TestARefusedCallerCannotTellWhichOrgsExist(t *testing.T) {
	b := start(t, nil, onConfig(func(c *Config) { c.Callers[0].Orgs = []string{"acme"} }))
	answers := make(map[string]bool)
	for _, org := range []string{"globex", "no-such-org"} {
		res, body := b.get(t, "/graph/x", "X-Org-ID: "+org, "X-Request-ID: same")
		require.Equal(t, 403, res.StatusCode)
		res.Header.Del("Date")
		var head strings.Builder
		require.NoError(t, res.Header.Write(&head))
		answers[head.String()+body] = true
	}
	require.Len(t, answers, 1)
	require.Zero(t, b.broker.asked.Load())
}

func TestOpenModeTakesNoRequestsFromForeignPages(t *testing.T) {
	b := start(t, nil, func(_ *bench, c *Config, r *Route) {
		c.Callers, c.Open, c.PublicURL = nil, true, "http://bifrost.example:8080"
		r.Hosts = []string{"graph.internal"}
	})
	for name, row := range map[string]struct {
		host, site string
		status     int
	}{
		"loopback address":      {"127.0.0.1:1234", "", 200},
		"another loopback":      {"127.8.9.1", "", 200},
		"IPv6 loopback":         {"[::1]:80", "", 200},
		"localhost":             {"LOCALHOST:80", "", 200},
		"public URL":            {"bifrost.example:8080", "", 200},
		"host of a route":       {"graph.internal", "", 200},
		"same origin":           {"localhost", "same-origin", 200},
		"rebound name":          {"evil.example", "", 403},
		"name with a loopback":  {"127.0.0.1.evil.example", "", 403},
		"localhost as a prefix": {"localhost.evil.example", "", 403},
		"foreign page":          {"localhost", "cross-site", 403},
		"private address":       {"10.0.0.1", "", 403},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request(t, "GET", "/graph/x", "", "Authorization: ", "Sec-Fetch-Site: "+row.site)
			r.Host = row.host
			res, _ := b.do(t, r)
			require.Equal(t, row.status, res.StatusCode)
			if row.status == 403 {
				require.Equal(t, "caller_forbidden", res.Header.Get("X-Bifrost-Error"))
			}
		})
	}
}

func TestCallersOfCertificatesAloneAreCallers(t *testing.T) {
	b := start(t, nil, named())
	res, _ := b.get(t, "/graph/x", "Authorization: ")
	require.Equal(t, 401, res.StatusCode, "that there is no key does not mean that nobody needs one")
	require.Empty(t, b.requests())
}

func TestEveryKeyOfACallerCountsUntilItsEnd(t *testing.T) {
	now := time.Now()
	b := start(t, nil, onConfig(func(c *Config) {
		c.Callers[0].Keys = []Key{
			{SHA256: digestOf("CANARY-new")},
			{SHA256: digestOf("CANARY-old"), NotAfter: now.Add(time.Hour)},
			{SHA256: digestOf("CANARY-ended"), NotAfter: now},
		}
	}))
	for key, status := range map[string]int{callerKey: 200, "CANARY-new": 200, "CANARY-old": 200, "CANARY-ended": 401} {
		for _, header := range []string{"Authorization: Bearer " + key, "Authorization: token " + key, basic("x", key), basic(key, ""), "X-Bifrost-Key: " + key} {
			res, _ := b.get(t, "/graph/x", header)
			require.Equal(t, status, res.StatusCode, header)
		}
	}
	old := httptest.NewRequest("GET", "/", nil)
	old.Header.Set("X-Bifrost-Key", "CANARY-old")
	require.NotNil(t, b.proxy.callers.of(old, now.Add(time.Hour)))
	require.Nil(t, b.proxy.callers.of(old, now.Add(time.Hour+1)))
}

func TestATrustedNetworkNeedsNoKeyAndNoHost(t *testing.T) {
	b := start(t, nil, onConfig(func(c *Config) { c.Callers = nil }))
	r := b.request(t, "GET", "/graph/x", "", "Authorization: ", "Sec-Fetch-Site: cross-site")
	r.Host = "bifrost.svc"
	res, _ := b.do(t, r)
	require.Equal(t, 200, res.StatusCode)
	res, _ = b.get(t, "/graph/x", "Authorization: ", "X-Org-ID: ")
	require.Equal(t, "org_required", res.Header.Get("X-Bifrost-Error"))
}

func TestBadCallersAreRefusedAtStart(t *testing.T) {
	key := func() string { return "k" }
	for _, callers := range [][]Caller{
		{{Name: "a", Key: func() string { return "" }}},
		{{Name: "a"}},
		{{Key: key}},
		{{Name: "a", Key: key}, {Name: "b", Key: key}},
		{{Name: "a", Key: key}, {Name: "b", Keys: []Key{{SHA256: digestOf("k")}}}},
		{{Name: "a", Keys: []Key{{SHA256: digestOf("k")}, {SHA256: digestOf("k"), NotAfter: time.Unix(1, 0)}}}},
		{{Name: "a", SANs: []string{"dns:a.test"}}, {Name: "b", SANs: []string{"dns:A.test"}}},
		{{Name: "a", SANs: []string{"spiffe://a.test/a"}}, {Name: "b", SANs: []string{"spiffe://a.test/a"}}},
		{{Name: "a", SANs: []string{"spiffe://user@a.test/a"}}},
		{{Name: "a", SANs: []string{"a.test"}}},
		{{Name: "a", SANs: []string{"dns:"}}},
		{{Name: "a", SANs: []string{"ip:a.test"}}},
		{{Name: "a", Key: key, Orgs: []string{"no org"}}},
		{{Name: "a", Key: key, Allow: []string{"/no/method"}}},
	} {
		_, err := New(Config{Broker: &fakeBroker{}, Callers: callers})
		require.Error(t, err)
	}
}

var orgPattern = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z`)

// FuzzOrg holds orgOf against the contract's own words, for any two values of either header and a caller with and without an org
// of its own.
func FuzzOrg(f *testing.F) {
	for _, seed := range []string{"acme", "a.b_c-d", "", "-a", "a b", "@global", "ä", strings.Repeat("a", 129)} {
		f.Add(seed, "globex", 1, 0)
		f.Add(seed, "global", 1, 1)
	}
	f.Add("acme", "globex", 2, 0)
	f.Add("global", "global", 0, 1)
	f.Add("global", "global", 0, 2)
	f.Add("", "", 0, 0)
	f.Fuzz(func(t *testing.T, first, second string, ids, scopes int) {
		h := http.Header{"X_org_id": {"theirs"}, "X.org.id": {"theirs"}}
		if ids %= 3; ids > 0 {
			h["X-Org-Id"] = []string{first, second}[:ids]
		}
		if scopes %= 3; scopes > 0 {
			h["X-Org-Scope"] = []string{second, first}[:scopes]
		}
		for _, c := range []*caller{nil, {}, {onlyOrg: "mine"}} {
			org, err := orgOf(h, c)
			want, wantCode := tokenstore.Org(""), code("")
			switch {
			case ids <= 0 && scopes <= 0 && c != nil && c.onlyOrg != "":
				want = "mine"
			case ids <= 0 && scopes <= 0:
				wantCode = codeOrgRequired
			case ids == 1 && scopes <= 0 && orgPattern.MatchString(first):
				want = tokenstore.Org(first)
			case ids <= 0 && scopes == 1 && second == "global":
				want = tokenstore.Global
			default:
				wantCode = codeOrgInvalid
			}
			require.Equal(t, want, org)
			if wantCode == "" {
				require.NoError(t, err)
				continue
			}
			require.Equal(t, wantCode, failureOf(t.Context(), err).code)
		}
	})
}
