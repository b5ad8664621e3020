package console_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// What an operator needs for a method of a path.
const (
	anybody   = "anybody" // without signing in
	sees      = "sees"
	changes   = "changes"
	overAll   = "changes everything"
	noSuch    = "there is no such method"
	neverMine = "not found"
)

// surface is every path that there is, with what its methods need. A path that is not here fails the test: whoever adds one says
// here what it needs.
var surface = map[string]map[string]string{
	"/{$}":                           {"GET": anybody, "POST": anybody, "PUT": anybody, "DELETE": anybody, "PATCH": anybody},
	"/":                              {"GET": neverMine, "POST": neverMine, "PUT": neverMine, "DELETE": neverMine, "PATCH": neverMine},
	"/api/":                          {"GET": neverMine, "POST": neverMine, "PUT": neverMine, "DELETE": neverMine, "PATCH": neverMine},
	"GET /integrations/copy.js":      {"GET": anybody, "POST": neverMine, "PUT": neverMine, "DELETE": neverMine, "PATCH": neverMine},
	"/integrations":                  {"GET": sees},
	"/integrations/sign-in":          {"POST": anybody},
	"/integrations/sign-in/sso":      {"POST": neverMine}, // this site has no provider
	"/integrations/sign-in/callback": {"GET": neverMine},
	"/integrations/sign-out":         {"POST": sees},
	"/integrations/{name}/connect":   {"POST": changes},
	"/integrations/{name}/refresh":   {"POST": changes},
	"/integrations/{name}/history":   {"GET": sees},
	"/api/v1/integrations/{name}/connections/{org}/history":            {"GET": sees},
	"/integrations/{name}/disconnect":                                  {"GET": changes, "POST": changes},
	"/integrations/{name}/links":                                       {"GET": sees, "POST": changes},
	"/integrations/{name}/revoke":                                      {"POST": changes},
	"/integrations/{name}/confirm":                                     {"POST": changes},
	"/integrations/{name}/reject":                                      {"POST": changes},
	"/api/v1/integrations":                                             {"GET": sees},
	"/api/v1/integrations/{name}":                                      {"GET": sees},
	"/api/v1/integrations/{name}/connections/{org}":                    {"GET": sees, "DELETE": changes},
	"/api/v1/integrations/{name}/connections/{org}/connect-link":       {"POST": changes},
	"/api/v1/integrations/{name}/connections/{org}/connect-links":      {"GET": sees, "DELETE": changes},
	"/api/v1/integrations/{name}/connections/{org}/connect-links/{id}": {"DELETE": changes},
	"/api/v1/integrations/{name}/connections/{org}/confirm":            {"POST": changes},
	"/api/v1/integrations/{name}/connections/{org}/reject":             {"POST": changes},
	"/api/v1/integrations/{name}/connections/{org}/refresh":            {"POST": changes},
	"/api/v1/integrations/{name}/connections/{org}/grant":              {"PUT": changes},
	"/api/v1/rekey":  {"POST": overAll},
	"/api/v1/backup": {"GET": overAll},
}

var everyMethod = []string{"GET", "POST", "PUT", "DELETE", "PATCH"}

// rightsOf are the operators of the matrix, by name, which is their token's too.
var rightsOf = map[string]console.Rights{
	"operator-of-all":    {},
	"viewer-of-all":      {ReadOnly: true},
	"operator-of-graph":  {Integrations: []string{"Microsoft_Graph"}},
	"viewer-of-graph":    {ReadOnly: true, Integrations: []string{"Microsoft_Graph"}},
	"operator-of-none":   {Integrations: []string{}},
	"operator-of-others": {Integrations: []string{"Private", "not-configured"}},
}

// newMatrixSite returns a site with the operators of the matrix, and what was done to connections.
func newMatrixSite(t *testing.T) (*site, *[]string) {
	t.Helper()
	var done []string
	s := newSite(t, func(cfg *console.Config) {
		cfg.Operators = nil
		for name, rights := range rightsOf {
			cfg.Operators = append(cfg.Operators, console.Operator{Name: name, Token: func() string { return "CANARY-" + name }, Rights: rights})
		}
		cfg.Upkeep.Rekey = func(context.Context) (tokenstore.Rekeyed, error) {
			done = append(done, "rekey")
			return tokenstore.Rekeyed{}, nil
		}
		cfg.Upkeep.Backup = func() (*tokenstore.Backup, error) {
			done = append(done, "backup")
			return nil, tokenstore.ErrUnavailable
		}
	})
	s.broker.connectLink = func(slot tokenstore.Slot, _ string, _ time.Duration) (authflow.Link, error) {
		done = append(done, "link "+slot.Integration)
		return authflow.Link{URL: "https://bifrost.example.com/oauth/connect/x"}, nil
	}
	s.broker.revoke = func(slot tokenstore.Slot, _ string) error {
		done = append(done, "revoke "+slot.Integration)
		return nil
	}
	s.broker.decide = func(slot tokenstore.Slot, _, _ string, _ bool) error {
		done = append(done, "decide "+slot.Integration)
		return nil
	}
	s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) {
		done = append(done, "refresh "+slot.Integration)
		return authflow.Connection{Slot: slot}, nil
	}
	s.broker.disconnect = func(slot tokenstore.Slot, _ string) error {
		done = append(done, "disconnect "+slot.Integration)
		return nil
	}
	s.broker.importGrant = func(slot tokenstore.Slot, _, _ string) (authflow.Connection, error) {
		done = append(done, "import "+slot.Integration)
		return authflow.Connection{Slot: slot}, nil
	}
	return s, &done
}

// visitPath sends what a path's forms or callers would, as an operator.
func (s *site) visitPath(operator, method, pattern, name string) *httptest.ResponseRecorder {
	path := strings.NewReplacer("GET ", "", "{$}", "", "{name}", name, "{org}", "acme", "{id}", someLink).Replace(pattern)
	if strings.HasSuffix(pattern, "/") { // whatever is below it
		path += "nothing"
	}
	if api, ok := strings.CutPrefix(path, "/api/v1"); ok {
		body := ""
		if strings.HasSuffix(path, "/grant") {
			body = `{"refresh_token":"CANARY-imported"}`
		}
		return s.call("CANARY-"+operator, method, api, body)
	}
	r := s.form(path, "org", "acme")
	if method == http.MethodGet {
		r = s.request(method, path+"?org=acme", "")
	}
	r.Method = method
	return s.do(r)
}

// TestEveryPathAsksForItsRights walks every path and method as every kind of operator, for an integration that he may see, one
// that he may not, and one that does not exist.
func TestEveryPathAsksForItsRights(t *testing.T) {
	s, _ := newMatrixSite(t)
	for _, pattern := range console.Patterns(s.handler) {
		require.Contains(t, surface, pattern, "say in this test what the new path needs")
		if strings.Contains(pattern, "{") && pattern != "/{$}" {
			require.Regexp(t, `^(/api/v1)?/integrations/\{name\}(/|$)`, pattern, "admit knows an integration by {name}")
		}
	}
	require.Len(t, console.Patterns(s.handler), len(surface))
	for pattern, methods := range surface {
		for operator := range rightsOf {
			for _, method := range everyMethod {
				need, ok := methods[method]
				if !ok {
					need = noSuch
				}
				for _, name := range namesFor(pattern) {
					t.Run(strings.Join([]string{method, pattern, name, operator}, " "), func(t *testing.T) {
						checkPath(t, operator, method, pattern, name, need)
					})
				}
			}
		}
	}
}

func namesFor(pattern string) []string {
	if strings.Contains(pattern, "{name}") {
		return []string{"Microsoft_Graph", "Private", "Nowhere"}
	}
	return []string{""}
}

func checkPath(t *testing.T, operator, method, pattern, name, need string) {
	s, done := newMatrixSite(t)
	s.token = "CANARY-" + operator
	s.signIn()
	s.log.Reset()
	w := s.visitPath(operator, method, pattern, name)

	rights := rightsOf[operator]
	visible := name == "" || name != "Nowhere" && (rights.Integrations == nil || slices.Contains(rights.Integrations, name))
	status := http.StatusOK
	switch {
	case need == noSuch:
		status = http.StatusMethodNotAllowed
	case need == neverMine, !visible && need != anybody:
		status = http.StatusNotFound
	case need == changes && rights.ReadOnly, need == overAll && (rights.ReadOnly || rights.Integrations != nil):
		status = http.StatusForbidden
	}
	api := strings.HasPrefix(pattern, "/api/")
	if status == http.StatusOK {
		require.NotContains(t, []int{http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, w.Code, w.Body)
		require.NotContains(t, s.log.String(), `"forbidden"`)
		if need == changes && method != http.MethodGet || need == overAll {
			require.Len(t, *done, 1)
		}
		return
	}
	require.Equal(t, status, w.Code, w.Body)
	require.Empty(t, *done, "refused, and done all the same")
	require.Equal(t, status == http.StatusForbidden, strings.Contains(s.log.String(), `"action":"forbidden"`))
	if status == http.StatusForbidden {
		require.Contains(t, s.log.String(), `"operator":"`+operator+`"`)
		require.NotContains(t, s.log.String(), "CANARY")
		if api {
			requireProblem(t, w, status, "operator_forbidden")
		}
	}
	if !visible { // in no answer, whatever its status, is a difference to a name that does not exist
		requireSameAnswer(t, s.visitPath(operator, method, pattern, "Nowhere"), w)
		require.NotContains(t, w.Body.String(), name)
	}
}

// varying is what differs between two equal answers.
var varying = regexp.MustCompile(`"request_id":"[A-Z2-7]+"`)

func requireSameAnswer(t *testing.T, want, got *httptest.ResponseRecorder) {
	t.Helper()
	require.Equal(t, want.Code, got.Code)
	require.Equal(t, want.Header(), got.Header())
	require.Equal(t, varying.ReplaceAllString(want.Body.String(), ""), varying.ReplaceAllString(got.Body.String(), ""))
}

func TestAListShowsWhatItsOperatorMaySee(t *testing.T) {
	for operator, names := range map[string][]string{
		"operator-of-all":    {"Machine", "Microsoft_Graph", "Private"},
		"viewer-of-all":      {"Machine", "Microsoft_Graph", "Private"},
		"viewer-of-graph":    {"Microsoft_Graph"},
		"operator-of-none":   nil,
		"operator-of-others": {"Private"},
	} {
		s, _ := newMatrixSite(t)
		s.token = "CANARY-" + operator
		s.signIn()
		for _, name := range []string{"Machine", "Microsoft_Graph", "Private"} {
			listed := slices.Contains(names, name)
			for _, path := range []string{
				"/integrations", "/integrations?integration=" + name, "/integrations?q=nothing-like-it",
				"/integrations?done=refreshed&org=acme&name=" + name,
			} {
				page := s.get(path).Body.String()
				if !listed {
					require.NotContains(t, page, name, "%s %s", operator, path)
				}
			}
			require.Equal(t, listed, strings.Contains(s.get("/integrations").Body.String(), `id="integration-`+name+`"`), "%s %s", operator, name)
			list := s.call(s.token, http.MethodGet, "/integrations", "").Body.String()
			require.Equal(t, listed, strings.Contains(list, fmt.Sprintf(`"name":%q`, name)), "%s %s", operator, name)
		}
	}
}

func TestAViewersScreenHasNothingToPress(t *testing.T) {
	s, _ := newMatrixSite(t)
	s.token = "CANARY-viewer-of-all"
	page := s.signIn().get("/integrations").Body.String()
	require.Contains(t, page, `Signed in as <strong>viewer-of-all</strong> <span class="badge">Viewer</span>`)
	require.Contains(t, page, "globex")
	for _, absent := range []string{"/connect", "/refresh", "/disconnect", ">Connect<", ">Reconnect<", ">Refresh<", ">Disconnect<"} {
		require.NotContains(t, page, absent)
	}
	s.post("/integrations/sign-out")
	s.token = "CANARY-operator-of-all"
	page = s.signIn().get("/integrations").Body.String()
	require.NotContains(t, page, ">Viewer<")
	require.Contains(t, page, ">Disconnect<")
}

func TestAViewerWhoPressesAllTheSameIsToldWhy(t *testing.T) {
	s, _ := newMatrixSite(t)
	s.token = "CANARY-viewer-of-all"
	w := s.signIn().post("/integrations/Microsoft_Graph/disconnect", "org", "acme")
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Contains(t, w.Body.String(), "Your role is viewer")
	require.Contains(t, s.log.String(), `"action":"forbidden","operator":"viewer-of-all","integration":"Microsoft_Graph","org":"acme","outcome":"operator_forbidden"`)
}

// The configuration may change while a session runs.
func TestRightsCountAtEveryRequest(t *testing.T) {
	s := newSite(t).signIn()
	viewers := newSite(t, func(cfg *console.Config) {
		cfg.Sessions = s.shelf
		cfg.Operators[0].Rights = console.Rights{ReadOnly: true}
	})
	viewers.cookies = s.cookies
	require.Equal(t, http.StatusForbidden, viewers.post("/integrations/Microsoft_Graph/refresh", "org", "acme").Code)
}

// A handler that forgets to look is no way round.
func TestACarelessHandlerIsGuardedAllTheSame(t *testing.T) {
	for _, pattern := range []string{"/integrations/{name}/careless", "/api/v1/integrations/{name}/careless"} {
		for _, tc := range []struct {
			operator, method, name string
			status                 int // 0: done
		}{
			{"viewer-of-graph", "GET", "Microsoft_Graph", 0},
			{"operator-of-graph", "POST", "Microsoft_Graph", 0},
			{"viewer-of-graph", "POST", "Microsoft_Graph", http.StatusForbidden},
			{"operator-of-graph", "GET", "Private", http.StatusNotFound},
			{"operator-of-graph", "POST", "Private", http.StatusNotFound},
			{"viewer-of-graph", "POST", "Private", http.StatusNotFound},
			{"operator-of-all", "GET", "Nowhere", http.StatusNotFound},
		} {
			s, _ := newMatrixSite(t)
			console.AddCareless(s.handler)
			s.token = "CANARY-" + tc.operator
			w := s.signIn().visitPath(tc.operator, tc.method, pattern, tc.name)
			if tc.status == 0 {
				require.Contains(t, []int{http.StatusOK, http.StatusTeapot}, w.Code)
			} else {
				require.Equal(t, tc.status, w.Code, "%s %s", pattern, tc)
			}
		}
	}
}
