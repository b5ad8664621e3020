package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestConnectLeadsToAConnectLink(t *testing.T) {
	s := newSite(t).signIn()
	var slots []tokenstore.Slot
	s.broker.connectLink = func(slot tokenstore.Slot, by string, life time.Duration) (authflow.Link, error) {
		require.Equal(t, "ops", by)
		require.Equal(t, 10*time.Minute, life)
		slots = append(slots, slot)
		return authflow.Link{URL: "https://bifrost.example.com/oauth/connect/Microsoft_Graph?ticket=t"}, nil
	}
	for _, org := range []string{"acme", "@global", "brand-new.org_1"} {
		w := s.post("/integrations/Microsoft_Graph/connect", "org", org)
		require.Equal(t, http.StatusSeeOther, w.Code)
		require.Equal(t, "https://bifrost.example.com/oauth/connect/Microsoft_Graph?ticket=t", w.Header().Get("Location"))
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	}
	require.Equal(t, []tokenstore.Slot{{Integration: "Microsoft_Graph", Org: "acme"}, {Integration: "Microsoft_Graph", Org: tokenstore.Global},
		{Integration: "Microsoft_Graph", Org: "brand-new.org_1"}}, slots)
	require.NotContains(t, s.log.String(), "ticket=", "the link is a secret")
}

func TestWhatNamesNoConnectionIsRefused(t *testing.T) {
	s := newSite(t).signIn() // its broker panics when it is asked to act
	for _, action := range []string{"connect", "refresh", "disconnect"} {
		for _, org := range []string{"", "a b", "-acme", "@all", "acme/../globex", strings.Repeat("a", 129), "<script>"} {
			w := s.post("/integrations/Microsoft_Graph/"+action, "org", org)
			require.Equal(t, http.StatusBadRequest, w.Code, "%s %q", action, org)
			require.Contains(t, w.Body.String(), "id begins with a letter or digit")
		}
		require.Equal(t, http.StatusNotFound, s.post("/integrations/Unknown/"+action, "org", "acme").Code)
		require.Equal(t, http.StatusBadRequest, s.post("/integrations/Microsoft_Graph/"+action+"?org=acme").Code, "the query names nothing")
	}
	require.Equal(t, http.StatusBadRequest, s.post("/integrations/Microsoft_Graph/connect", "org", "acme", "x", strings.Repeat("x", 100_000)).Code)
}

func TestNobodyConsentsToClientCredentials(t *testing.T) {
	s := newSite(t).signIn()
	w := s.post("/integrations/Machine/connect", "org", "acme")
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "nobody to consent")
	require.NotContains(t, w.Body.String(), `action="/integrations/Machine/connect"`)
}

func TestAConnectThatFailsSaysWhy(t *testing.T) {
	s := newSite(t).signIn()
	s.broker.connectLink = func(slot tokenstore.Slot, _ string, _ time.Duration) (authflow.Link, error) {
		return authflow.Link{}, &authflow.Error{Reason: authflow.ErrUnresolved, Slot: slot, Detail: "{vars.region} has no value for acme"}
	}
	w := s.post("/integrations/Microsoft_Graph/connect", "org", "acme")
	require.Equal(t, http.StatusFailedDependency, w.Code)
	require.Contains(t, w.Body.String(), "{vars.region} has no value for acme")
}

func TestRefreshLeadsBackWithANotice(t *testing.T) {
	s := newSite(t).signIn()
	var err error
	s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) {
		require.Equal(t, tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}, slot)
		return authflow.Connection{}, err
	}
	w := s.post("/integrations/Microsoft_Graph/refresh", "org", "acme", "view", "q=ac&page=2&done=x")
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/integrations?done=refreshed&name=Microsoft_Graph&org=acme&page=2&q=ac", w.Header().Get("Location"))
	require.Contains(t, s.get(w.Header().Get("Location")).Body.String(), "was refreshed.")

	err = &authflow.Error{Reason: authflow.ErrProvider}
	w = s.post("/integrations/Microsoft_Graph/refresh", "org", "acme")
	require.Equal(t, "/integrations?done=idp_unavailable&name=Microsoft_Graph&org=acme", w.Header().Get("Location"))
	require.Contains(t, s.get(w.Header().Get("Location")).Body.String(), "could not be refreshed: The identity provider is unavailable.")
	require.Contains(t, s.log.String(), `"outcome":"idp_unavailable"`)
}

func TestANoticeIsOneOfOurs(t *testing.T) {
	s := newSite(t).signIn()
	for _, query := range []string{
		"done=call+0900-EVIL&name=Microsoft_Graph&org=acme", "done=refreshed&name=call+0900-EVIL&org=acme",
		"done=refreshed&name=Microsoft_Graph&org=call+0900-EVIL",
	} {
		page := s.get("/integrations?" + query).Body.String()
		require.NotContains(t, page, "EVIL")
		require.NotContains(t, page, `role="status"`)
	}
}

func TestDisconnectAsksFirst(t *testing.T) {
	s := newSite(t).signIn()
	disconnected := 0
	s.broker.disconnect = func(slot tokenstore.Slot, by string) error {
		require.Equal(t, tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}, slot)
		require.Equal(t, "ops", by)
		disconnected++
		return nil
	}
	require.Contains(t, s.get("/integrations?q=acme").Body.String(), `href="/integrations/Microsoft_Graph/disconnect?org=acme&amp;q=acme"`)
	page := s.get("/integrations/Microsoft_Graph/disconnect?org=acme&q=acme").Body.String()
	require.Contains(t, page, "Disconnect acme?")
	require.Contains(t, page, `href="/integrations?q=acme"`)
	require.Zero(t, disconnected)

	w := s.post("/integrations/Microsoft_Graph/disconnect", "org", "acme", "view", "q=acme")
	require.Equal(t, 1, disconnected)
	require.Equal(t, "/integrations?done=disconnected&name=Microsoft_Graph&org=acme&q=acme", w.Header().Get("Location"))
	require.Contains(t, s.get(w.Header().Get("Location")).Body.String(), "was disconnected.")

	require.Equal(t, http.StatusBadRequest, s.get("/integrations/Microsoft_Graph/disconnect?org=a+b").Code)
	require.Equal(t, http.StatusNotFound, s.get("/integrations/Unknown/disconnect?org=acme").Code)
}

func TestADisconnectThatFailsSaysWhy(t *testing.T) {
	s := newSite(t).signIn()
	s.broker.disconnect = func(tokenstore.Slot, string) error { return &authflow.Error{Reason: authflow.ErrStore} }
	w := s.post("/integrations/Microsoft_Graph/disconnect", "org", "acme")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	require.Contains(t, s.log.String(), `"outcome":"store_unavailable"`)
}

func TestButtonsAreThoseThatHelp(t *testing.T) {
	s := newSite(t).signIn()
	page := s.get("/integrations").Body.String()
	for label, want := range map[string]bool{
		"Reconnect the global connection": true, "Refresh the global connection": true, "Disconnect the global connection": true,
		"Reconnect acme": true, "Refresh acme": false, "Disconnect acme": true, // its grant is dead
		"Connect globex": true, "Refresh globex": false, "Disconnect globex": false, // never connected
		"Refresh expiring-org": false, // it has no refresh token
		"Refresh degraded.org": true,
	} {
		require.Equal(t, want, strings.Contains(page, `aria-label="`+label+`"`), label)
	}
	require.Equal(t, 1, strings.Count(page, `<button name="org" value="@global">`), "of the integration that shows no global connection")
}
