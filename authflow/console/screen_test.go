package console_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestTheScreenShowsEveryConnection(t *testing.T) {
	s := newSite(t).signIn()

	w := s.get("/integrations")
	require.Equal(t, http.StatusOK, w.Code)
	page := w.Body.String()
	for _, want := range []string{
		"Signed in as <strong>ops</strong>",
		"https://bifrost.example.com/oauth/callback/Microsoft_Graph",
		">Active<", ">Degraded<", ">Expiring<", ">Needs reconnect<", ">Not connected<", "Uses global",
		"20 Nov 2026, 10:00:00 UTC", `datetime="2026-11-20T10:00:00Z"`,
		"invalid_grant", "The provider refused the grant.", "Consent running since",
		"1 missing", "User.Read", "common", "by ops", "No refresh token",
		"Connect another organization", "Signs in with its own client credentials",
		"<strong>1</strong> active", "<strong>3</strong> need attention",
	} {
		require.Contains(t, page, want)
	}
	require.Less(t, strings.Index(page, ">Global<"), strings.Index(page, ">acme<"), "the global connection stands first")
	require.NotContains(t, page, "oauth/callback/Machine", "an integration without consent needs no redirect URI")
}

func TestThePageIsProtected(t *testing.T) {
	s := newSite(t, func(cfg *console.Config) { cfg.PublicURL = "https://bifrost.example.com/int" })
	for _, path := range []string{"/integrations", "/nothing", "/"} {
		w := s.get(path)
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"), path)
		require.Equal(t, "no-referrer", w.Header().Get("Referrer-Policy"), path)
		require.Contains(t, w.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'", path)
	}
	s.signIn()
	policy := s.get("/integrations").Header().Get("Content-Security-Policy")
	require.Contains(t, policy, "script-src 'self'")
	require.Contains(t, policy, "form-action 'self' https://bifrost.example.com")
}

func TestWhatOthersWroteIsEscaped(t *testing.T) {
	s := newSite(t).signIn()
	page := s.get("/integrations?q=%22%3E%3Cimg+src%3Dx%3E").Body.String() + s.get("/integrations").Body.String()
	require.NotContains(t, page, "<script>alert")
	require.NotContains(t, page, "<img")
	require.NotContains(t, page, "<b>")
	require.Contains(t, page, "Graph &lt;script&gt;")
}

func TestNoSecretIsOnAnyPage(t *testing.T) {
	s := newSite(t).signIn()
	s.broker.disconnect = func(tokenstore.Slot, string) error { return nil }
	for _, path := range []string{"/integrations", "/integrations/Microsoft_Graph/disconnect?org=acme", "/api/v1/integrations"} {
		require.NotContains(t, s.get(path).Body.String(), "CANARY", path)
	}
	require.NotContains(t, s.post("/integrations/sign-in", "token", "CANARY-wrong").Body.String(), "CANARY")
	for _, path := range []string{"/integrations", "/integrations/Microsoft_Graph"} {
		require.NotContains(t, s.call(operatorToken, http.MethodGet, path, "").Body.String(), "CANARY", path)
	}
	require.NotContains(t, s.log.String(), "CANARY")
	for id := range s.shelf.values {
		require.NotContains(t, id+string(s.shelf.values[id]), "CANARY")
	}
}

func TestLinksCarryThePublicURLsPrefix(t *testing.T) {
	s := newSite(t, func(cfg *console.Config) { cfg.PublicURL = "https://bifrost.example.com/int" }).signIn()
	s.broker.refresh = func(tokenstore.Slot) (authflow.Connection, error) { return authflow.Connection{}, nil }

	page := s.get("/integrations").Body.String()
	for _, attribute := range []string{`href="/`, `action="/`, `src="/`} {
		require.Contains(t, page, attribute+"int/integrations")
		require.Equal(t, strings.Count(page, attribute), strings.Count(page, attribute+"int/"), "every %s", attribute)
	}
	require.Contains(t, page, "https://bifrost.example.com/int/oauth/callback/Microsoft_Graph")
	require.Equal(t, "/int/integrations", s.get("/").Header().Get("Location"))
	w := s.post("/integrations/Microsoft_Graph/refresh", "org", "acme")
	require.Regexp(t, `^/int/integrations\?`, w.Header().Get("Location"))
}

func TestTenThousandConnectionsStayUsable(t *testing.T) {
	s := newSite(t).signIn()
	for i := range 10_000 {
		status := authflow.Active
		if i == 7_777 {
			status = authflow.NeedsReconnect
		}
		s.broker.connections = append(s.broker.connections, authflow.Connection{
			Slot: tokenstore.Slot{Integration: "Private", Org: tokenstore.Org(fmt.Sprintf("tenant-%05d", i))}, Status: status, ExpiresAt: time.Now().Add(time.Hour)})
	}
	rows := func(page string) int { return strings.Count(page, `<tr`) - strings.Count(page, "<thead>") }

	glance := s.get("/integrations").Body.String()
	require.Less(t, rows(glance), 100)
	require.Contains(t, glance, "Show all 10000 connections")

	first := s.get("/integrations?integration=Private").Body.String()
	require.Equal(t, 100, rows(first))
	require.Contains(t, first, "1–100 of 10000")
	require.Contains(t, first, `href="/integrations?integration=Private&amp;page=2"`)

	last := s.get("/integrations?integration=Private&page=100").Body.String()
	require.Contains(t, last, "tenant-09999")
	require.NotContains(t, last, "Next →")
	require.Contains(t, s.get("/integrations?integration=Private&page=99999").Body.String(), "tenant-09999", "past the end is the last page")

	found := s.get("/integrations?q=TENANT-0123").Body.String()
	require.Equal(t, 10, rows(found))
	require.Contains(t, s.get("/integrations?show=attention&integration=Private").Body.String(), "tenant-07777")
	require.Equal(t, 1, rows(s.get("/integrations?show=attention&integration=Private").Body.String()))
}

func TestAFilterHidesIntegrationsWithoutAMatch(t *testing.T) {
	s := newSite(t).signIn()
	page := s.get("/integrations?q=acme").Body.String()
	require.Contains(t, page, ">Microsoft_Graph<")
	require.NotContains(t, page, ">Private<")
	require.NotContains(t, page, ">globex<")
	require.Contains(t, s.get("/integrations?q=nobody").Body.String(), "No connection matches.")
	require.Contains(t, s.get("/integrations?integration=Private").Body.String(), "No organization is connected yet.")
}

// A failure's connect_url filters by the org: of one that never connected there is no row, but it can be connected there.
func TestAFilterOfOneIntegrationLeavesTheFormToConnect(t *testing.T) {
	s := newSite(t).signIn()
	for query, field := range map[string]string{"nobody": `value="nobody" `, "%40global": "", "no+org": "", "": ""} {
		page := s.get("/integrations?integration=Private&q=" + query).Body.String()
		require.Contains(t, page, `action="/integrations/Private/connect"`, query)
		require.Contains(t, page, `type="text" name="org" `+field+"required", query)
		require.Equal(t, query != "", strings.Contains(page, "No connection matches."), query)
		require.NotContains(t, page, ">Microsoft_Graph<", query)
	}
	page := s.get("/integrations?integration=Microsoft_Graph&q=acme").Body.String()
	require.Contains(t, page, ">acme<")
	require.Contains(t, page, `name="org" required`, "it has a row")
}

func TestAnOrgUsesOnlyAGlobalConnectionThatThereIs(t *testing.T) {
	s := newSite(t).signIn()
	require.Contains(t, s.get("/integrations?q=globex").Body.String(), "Uses global")
	s.broker.connections[0].Status = authflow.NotConnected
	require.NotContains(t, s.get("/integrations?q=globex").Body.String(), "Uses global")
}

func TestAStoreThatCannotBeReadIsSaid(t *testing.T) {
	s := newSite(t).signIn()
	s.broker.listError = &authflow.Error{Reason: authflow.ErrStore}

	w := s.get("/integrations")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "The token store cannot be reached.")
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}

func TestOtherPathsAreNotOurs(t *testing.T) {
	s := newSite(t).signIn()
	for _, path := range []string{"/metrics", "/integrations/", "/integrations/Microsoft_Graph", "/graph/v1.0/users", "/healthz"} {
		w := s.get(path)
		require.Equal(t, http.StatusNotFound, w.Code, path)
		require.Contains(t, w.Header().Get("Content-Type"), "text/html")
	}
	require.Equal(t, "/integrations", s.get("/").Header().Get("Location"))
	require.Equal(t, http.StatusSeeOther, s.get("/").Code)
	require.Equal(t, http.StatusMethodNotAllowed, s.get("/integrations/Microsoft_Graph/connect").Code)
	require.Equal(t, "POST", s.get("/integrations/Microsoft_Graph/connect").Header().Get("Allow"))
}

func TestTheCopyScriptIsServed(t *testing.T) {
	w := newSite(t).get("/integrations/copy.js")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Header().Get("Content-Type"), "text/javascript")
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	require.Contains(t, w.Body.String(), "clipboard")
}
