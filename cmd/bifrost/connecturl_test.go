package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// The address used to name what the screen does not look at, so that it led to all integrations and all orgs.
func TestConnectURLLeadsToTheConnection(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		_, graph, _ := strings.Cut(text, "  graph:\n")
		return strings.Replace(text, "proxy: {", "proxy: {include_connect_url: true, ", 1) +
			"  calendar:\n    fallback: none\n" + strings.Replace(graph, "route: /graph", "route: /calendar", 1)
	})
	s.start(t)
	s.connect(t, "acme")
	s.connectTo(t, "calendar", "acme")
	s.connectTo(t, "calendar", "globex")
	browser, err := s.browse()
	require.NoError(t, err)
	leads := connectURL("http://" + s.auth)
	follow := func(org, integration string) string {
		t.Helper()
		screen, err := page(browser.Get(leads(tokenstore.Slot{Integration: integration, Org: tokenstore.Org(org)})))
		require.NoError(t, err)
		return screen
	}

	status, body := s.call(t, "initech", "/calendar/me")
	require.Equal(t, http.StatusFailedDependency, status, body)
	var failed struct {
		URL string `json:"connect_url"`
	}
	require.NoError(t, json.Unmarshal([]byte(body), &failed))
	require.Equal(t, leads(tokenstore.Slot{Integration: "calendar", Org: "initech"}), failed.URL)
	screen := follow("initech", "calendar") // has never connected: there is no row, but the form for it
	require.Contains(t, screen, `action="/integrations/calendar/connect"`)
	require.Contains(t, screen, `value="initech" required`)

	s.connectTo(t, "calendar", "initech-2")
	screen = follow("initech", "calendar")
	require.Contains(t, screen, `<span class="org">initech-2<`)
	require.Contains(t, screen, `value="initech" required`, "another org's row is not what the address is about")
	s.connectTo(t, "calendar", "2")
	screen = follow("2", "calendar")
	require.Less(t, strings.Index(screen, `<span class="org">2<`), strings.Index(screen, `<span class="org">initech-2<`), "the org itself comes first")

	screen = follow("globex", "calendar")
	require.Contains(t, screen, `<span class="org">globex<`)
	require.NotContains(t, screen, `<span class="org">acme<`)
	require.NotContains(t, screen, "/integrations/graph/")
	screen = follow("@global", "graph")
	require.Contains(t, screen, `<span class="org">Global<`)
	require.NotContains(t, screen, `<span class="org">acme<`)
}
