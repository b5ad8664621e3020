package console_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const acme = "/integrations/Microsoft_Graph/connections/acme"

// The exact bytes that programs rely on.
const (
	wantAcme = `{"org":"acme","status":"needs_reconnect","pending_since":"2026-11-20T09:59:00Z",` +
		`"last_error":{"code":"invalid_grant","text":"The provider refused the grant.","time":"2026-11-20T10:00:00Z"},` +
		`"expires_at":null,"last_refresh_at":null,"next_refresh_at":null,"has_refresh_token":true,"scopes":[],"scopes_missing":[],` +
		`"entity_id":"","connected_at":null,"connected_by":"\u003cb\u003e\"eve\"\u003c/b\u003e","awaiting_confirmation":null}`
	wantGlobal = `{"org":"@global","status":"active","pending_since":null,"last_error":null,"expires_at":"2026-11-20T10:00:00Z",` +
		`"last_refresh_at":"2026-11-20T09:00:00Z","next_refresh_at":"2026-11-20T09:50:00Z","has_refresh_token":true,` +
		`"scopes":["offline_access"],"scopes_missing":["User.Read"],"entity_id":"common","connected_at":"2026-11-18T10:00:00Z","connected_by":"ops","awaiting_confirmation":null}`
	wantNever = `{"org":"never","status":"not_connected","pending_since":null,"last_error":null,"expires_at":null,"last_refresh_at":null,` +
		`"next_refresh_at":null,"has_refresh_token":false,"scopes":[],"scopes_missing":[],"entity_id":"","connected_at":null,"connected_by":"","awaiting_confirmation":null}`
	wantPrivate = `{"name":"Private","description":"","flow":"authorization_code",` +
		`"redirect_uri":"https://bifrost.example.com/oauth/callback/Private","scopes":[]`
)

func TestAPIShowsIntegrationsAndConnections(t *testing.T) {
	s := newSite(t)
	for path, want := range map[string]string{
		acme: wantAcme,
		"/integrations/Microsoft_Graph/connections/@global":   wantGlobal,
		"/integrations/Microsoft_Graph/connections/%40global": wantGlobal,
		"/integrations/Microsoft_Graph/connections/never":     wantNever,
		"/integrations/Private": wantPrivate + `,"connections":[` +
			strings.Replace(wantNever, "never", "@global", 1) + `]}`,
		"/integrations": `{"integrations":[` +
			`{"name":"Machine","description":"","flow":"client_credentials","redirect_uri":"https://bifrost.example.com/oauth/callback/Machine","scopes":[]},` +
			`{"name":"Microsoft_Graph","description":"Graph \u003cscript\u003ealert(1)\u003c/script\u003e","flow":"authorization_code",` +
			`"redirect_uri":"https://bifrost.example.com/oauth/callback/Microsoft_Graph","scopes":["offline_access","User.Read"]},` +
			wantPrivate + `}]}`,
	} {
		w := s.call(operatorToken, http.MethodGet, path, "")
		require.Equal(t, http.StatusOK, w.Code, path)
		require.Equal(t, want+"\n", w.Body.String(), path)
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.Empty(t, w.Result().Cookies())
	}
	require.Contains(t, s.call(operatorToken, http.MethodGet, "/integrations/Microsoft_Graph", "").Body.String(), `"connections":[`+wantGlobal+","+wantAcme)
	require.Contains(t, s.call(operatorToken, http.MethodGet, "/integrations/Machine", "").Body.String(), `"connections":[]`)
	require.Equal(t, http.StatusOK, s.call(operatorToken, http.MethodHead, "/integrations", "").Code)
}

func TestAPITimesAreUTC(t *testing.T) {
	s := newSite(t)
	s.broker.connections = []authflow.Connection{{Slot: tokenstore.Slot{Integration: "Private", Org: "acme"}, Status: authflow.Active,
		ExpiresAt: time.Date(2026, 11, 20, 12, 0, 0, 123_456_789, time.FixedZone("", 2*60*60))}}
	require.Contains(t, s.call(operatorToken, http.MethodGet, "/integrations/Private/connections/acme", "").Body.String(), `"expires_at":"2026-11-20T10:00:00Z"`)
}

func TestAPINeedsAnOperatorsToken(t *testing.T) {
	s := newSite(t).signIn()
	requireProblem(t, s.get("/api/v1/integrations"), http.StatusUnauthorized, "operator_unauthenticated") // a session is not enough
	for _, path := range []string{"/integrations", "/integrations/Unknown", acme, acme + "/refresh"} {
		for _, token := range []string{"", "CANARY-wrong", operatorToken + " x"} {
			w := s.call(token, http.MethodGet, path, "")
			requireProblem(t, w, http.StatusUnauthorized, "operator_unauthenticated")
			require.Contains(t, w.Header().Get("WWW-Authenticate"), "Bearer")
			require.NotContains(t, w.Body.String(), "Microsoft_Graph", "whether a name exists is not told")
			require.NotContains(t, w.Body.String(), "CANARY")
		}
	}
	for name, change := range map[string]func(http.Header){
		"another scheme": func(h http.Header) { h.Set("Authorization", "Basic "+operatorToken) },
		"twice": func(h http.Header) {
			h["Authorization"] = []string{"Bearer " + operatorToken, "Bearer " + operatorToken}
		},
	} {
		r := s.request(http.MethodGet, "/api/v1/integrations", "")
		change(r.Header)
		require.Equal(t, http.StatusUnauthorized, s.do(r).Code, name)
	}
	r := s.request(http.MethodGet, "/api/v1/integrations", "")
	r.Header.Set("Authorization", "bearer "+otherToken)
	require.Equal(t, http.StatusOK, s.do(r).Code, "the scheme's case does not matter")
}

func TestAPIRefusesOtherSites(t *testing.T) {
	for _, s := range []*site{newSite(t), newSite(t, openMode)} {
		for _, site := range []string{"cross-site", "same-site"} {
			r := s.request(http.MethodDelete, "/api/v1"+acme, "")
			r.Header.Set("Sec-Fetch-Site", site)
			r.Header.Set("Authorization", "Bearer "+operatorToken)
			requireProblem(t, s.do(r), http.StatusForbidden, "operator_forbidden")
		}
	}
}

func TestAPIRefusesWhatItDoesNotKnow(t *testing.T) {
	s := newSite(t)
	for _, tc := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/integrations/Unknown", "", 404, "not_found"},
		{"GET", "/integrations/Unknown/connections/acme", "", 404, "not_found"},
		{"DELETE", "/integrations/Unknown/connections/acme", "", 404, "not_found"},
		{"GET", "/integrations/Microsoft_Graph/connections/a%20b", "", 400, "org_invalid"},
		{"GET", "/integrations/Microsoft_Graph/connections/@all", "", 400, "org_invalid"},
		{"GET", "/integrations/Microsoft_Graph/connections/a%2Fb", "", 400, "org_invalid"},
		{"GET", "/nothing", "", 404, "not_found"},
		{"GET", acme + "/nothing", "", 404, "not_found"},
		{"POST", "/integrations", "", 405, "method_not_allowed"},
		{"PUT", acme, "", 405, "method_not_allowed"},
		{"GET", acme + "/connect-link", "", 405, "method_not_allowed"},
		{"POST", acme + "/connect-link", `{"expires_in":"24h","scope":"all"}`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `{"expires_in":24}`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `{"expires_in":"1d"}`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `{"expires_in":"-1h"}`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `{"expires_in":"9000h"}`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `{} {}`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `[]`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `expires_in=24h`, 400, "bad_request"},
		{"POST", acme + "/connect-link", `{"expires_in":"` + strings.Repeat("1", 100_000) + `"}`, 413, "body_too_large"},
		{"POST", acme + "/refresh", `{"force":true}`, 400, "bad_request"},
		{"PUT", acme + "/grant", ``, 400, "bad_request"},
		{"PUT", acme + "/grant", `{"refresh_token":""}`, 400, "bad_request"},
		{"PUT", acme + "/grant", `{"refresh_token":"CANARY\n"}`, 400, "bad_request"},
		{"PUT", acme + "/grant", `{"refresh_token":"CANARY","org":"x"}`, 400, "bad_request"},
		{"POST", "/integrations/Machine/connections/acme/connect-link", `{}`, 400, "bad_request"},
		{"PUT", "/integrations/Machine/connections/acme/grant", `{"refresh_token":"CANARY"}`, 400, "bad_request"},
	} {
		w := s.call(operatorToken, tc.method, tc.path, tc.body)
		requireProblem(t, w, tc.status, tc.code)
		require.NotContains(t, w.Body.String(), "CANARY")
		if tc.status == 405 {
			require.NotEmpty(t, w.Header().Get("Allow"))
		}
	}
	require.NotContains(t, s.log.String(), "CANARY")
}

func TestAPIMakesConnectLinks(t *testing.T) {
	s := newSite(t)
	expires := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	var life time.Duration
	s.broker.connectLink = func(slot tokenstore.Slot, by string, l time.Duration) (authflow.Link, error) {
		require.Equal(t, tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}, slot)
		require.Equal(t, "other", by)
		life = l
		return authflow.Link{ID: someLink, URL: "https://bifrost.example.com/oauth/connect/Microsoft_Graph?ticket=t", ExpiresAt: expires}, nil
	}
	for body, want := range map[string]time.Duration{"": 24 * time.Hour, "{}": 24 * time.Hour, `{"expires_in":"90m"}`: 90 * time.Minute} {
		w := s.call(otherToken, http.MethodPost, acme+"/connect-link", body)
		require.Equal(t, http.StatusOK, w.Code)
		require.JSONEq(t, `{"id":"`+someLink+`","url":"https://bifrost.example.com/oauth/connect/Microsoft_Graph?ticket=t","expires_at":"2026-11-21T10:00:00Z"}`, w.Body.String())
		require.Equal(t, want, life, body)
	}
	require.NotContains(t, s.log.String(), "ticket=")
	require.Contains(t, s.log.String(), `"action":"link_made","operator":"other","integration":"Microsoft_Graph","org":"acme","link":"`+someLink+`"`)
}

func TestAPIDisconnects(t *testing.T) {
	s := newSite(t)
	s.broker.disconnect = func(slot tokenstore.Slot, by string) error {
		require.Equal(t, tokenstore.Slot{Integration: "Microsoft_Graph", Org: tokenstore.Global}, slot)
		require.Equal(t, "ops", by)
		return nil
	}
	w := s.call(operatorToken, http.MethodDelete, "/integrations/Microsoft_Graph/connections/%40global", "")
	require.Equal(t, http.StatusNoContent, w.Code)
	require.Empty(t, w.Body.String())
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Contains(t, s.log.String(), `"action":"disconnect"`)
}

func TestAPIRefreshesAndImports(t *testing.T) {
	s := newSite(t)
	s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) {
		return authflow.Connection{Slot: slot, Status: authflow.Active}, nil
	}
	s.broker.importGrant = func(slot tokenstore.Slot, refreshToken, by string) (authflow.Connection, error) {
		require.Equal(t, "CANARY-refresh-token", refreshToken)
		require.Equal(t, "ops", by)
		return authflow.Connection{Slot: slot, Status: authflow.Active, HasRefresh: true}, nil
	}
	w := s.call(operatorToken, http.MethodPost, acme+"/refresh", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `{"org":"acme","status":"active"`)

	w = s.call(operatorToken, http.MethodPut, acme+"/grant", `{"refresh_token":"CANARY-refresh-token"}`)
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `"has_refresh_token":true`)
	require.NotContains(t, w.Body.String()+s.log.String(), "CANARY")
}

// Every reason that a Broker can give, as the API's answer.
func TestAPITellsWhatWentWrong(t *testing.T) {
	for _, tc := range []struct {
		reason    error
		status    int
		code      string
		retryable bool
	}{
		{authflow.ErrUnknownIntegration, 404, "not_found", false},
		{authflow.ErrBadLink, 400, "bad_request", false},
		{authflow.ErrNotConnected, 424, "not_connected", false},
		{authflow.ErrUnresolved, 424, "not_connected", false},
		{authflow.ErrReconnect, 424, "needs_reconnect", false},
		{authflow.ErrGrantRefused, 422, "grant_refused", false},
		{authflow.ErrPending, 503, "refresh_pending", true},
		{authflow.ErrProvider, 503, "idp_unavailable", true},
		{authflow.ErrClient, 503, "idp_rejected_client", true},
		{authflow.ErrStore, 503, "store_unavailable", true},
		{authflow.ErrUnreadable, 503, "record_unreadable", false},
		{tokenstore.ErrUnavailable, 503, "store_unavailable", true},
		{tokenstore.ErrUnreadable, 503, "record_unreadable", false},
		{errors.New("anything else"), 500, "internal_error", false},
	} {
		t.Run(tc.reason.Error(), func(t *testing.T) {
			s := newSite(t)
			s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) {
				return authflow.Connection{}, fmt.Errorf("wrapped: %w", &authflow.Error{Reason: tc.reason, Slot: slot, RetryAfter: 6500 * time.Millisecond})
			}
			w := s.call(operatorToken, http.MethodPost, acme+"/refresh", "")
			requireProblem(t, w, tc.status, tc.code)
			require.Contains(t, w.Body.String(), fmt.Sprintf(`"retryable":%t`, tc.retryable))
			require.Contains(t, w.Body.String(), `"integration":"Microsoft_Graph","org":"acme"`)
			require.Contains(t, s.log.String(), `"outcome":"`+tc.code+`"`)
			if tc.status == 503 {
				require.Equal(t, "7", w.Header().Get("Retry-After"), "rounded up")
			}
		})
	}
}
