package console_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// audited makes a site tell its events to list.
func audited(list *[]authflow.Event) func(*console.Config) {
	return func(cfg *console.Config) {
		cfg.Audit.Record = func(_ context.Context, e authflow.Event) { *list = append(*list, e) }
	}
}

// takeEvents returns what was told since the last call, without what differs from call to call.
func takeEvents(t *testing.T, list *[]authflow.Event) []authflow.Event {
	t.Helper()
	events := *list
	*list = nil
	for i := range events {
		require.NotEmpty(t, events[i].Request)
		require.Equal(t, "192.0.2.1", events[i].Address, "httptest's, not what a header says")
		events[i].Request, events[i].Address = "", ""
	}
	return events
}

func TestEveryActionIsAnEvent(t *testing.T) {
	var told []authflow.Event
	s := newSite(t, audited(&told), func(cfg *console.Config) {
		cfg.Upkeep.Rekey = func(context.Context) (tokenstore.Rekeyed, error) { return tokenstore.Rekeyed{}, nil }
	})
	acme := tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}
	s.broker.connectLink = func(tokenstore.Slot, string, time.Duration) (authflow.Link, error) {
		return authflow.Link{URL: "https://bifrost.example.com/oauth/connect/Microsoft_Graph?ticket=CANARY-ticket"}, nil
	}
	refuse := error(nil)
	s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) { return authflow.Connection{}, refuse }
	s.broker.disconnect = func(tokenstore.Slot, string) error { return nil }
	s.broker.importGrant = func(slot tokenstore.Slot, token, by string) (authflow.Connection, error) {
		return authflow.Connection{}, &authflow.Error{Reason: authflow.ErrGrantRefused, Slot: slot}
	}
	by := func(actor string, action authflow.Action, slot tokenstore.Slot, outcome string) []authflow.Event {
		return []authflow.Event{{Action: action, Actor: actor, Slot: slot, Outcome: outcome}}
	}
	none := tokenstore.Slot{}
	connection := "/integrations/Microsoft_Graph/connections/acme"
	steps := []struct {
		name string
		do   func()
		want []authflow.Event
	}{
		{"a wrong token", func() { s.post("/integrations/sign-in", "token", "CANARY-wrong") },
			by(authflow.Anonymous, "sign_in_failed", none, "operator_unauthenticated")},
		{"a wrong token at the API", func() { s.call("CANARY-wrong", http.MethodGet, "/integrations", "") },
			by(authflow.Anonymous, "sign_in_failed", none, "operator_unauthenticated")},
		{"no token at the API", func() { s.call("", http.MethodGet, "/integrations", "") }, nil},
		{"a sign-in", func() { s.signIn() }, by("ops", "sign_in", none, "ok")},
		{"a look", func() { s.get("/integrations") }, nil},
		{"a connect", func() { s.post("/integrations/Microsoft_Graph/connect", "org", "acme") }, by("ops", "link_made", acme, "ok")},
		{"a link", func() { s.call(otherToken, http.MethodPost, connection+"/connect-link", "{}") }, by("other", "link_made", acme, "ok")},
		{"a refresh", func() { s.post("/integrations/Microsoft_Graph/refresh", "org", "acme") }, by("ops", "refresh", acme, "ok")},
		{"a refresh that fails", func() {
			refuse = &authflow.Error{Reason: authflow.ErrReconnect, Slot: acme, Detail: "CANARY-detail"}
			s.call(otherToken, http.MethodPost, connection+"/refresh", "")
		}, by("other", "refresh", acme, "needs_reconnect")},
		{"an import", func() { s.call(otherToken, http.MethodPut, connection+"/grant", `{"refresh_token":"CANARY-refresh"}`) },
			by("other", "import", acme, "grant_refused")},
		{"a disconnect", func() { s.post("/integrations/Microsoft_Graph/disconnect", "org", "acme") }, by("ops", "disconnect", acme, "ok")},
		{"a rekey", func() { s.call(otherToken, http.MethodPost, "/rekey", "") }, by("other", "rekey", none, "ok")},
		{"a sign-out", func() { s.post("/integrations/sign-out") }, by("ops", "sign_out", none, "ok")},
	}
	for _, step := range steps {
		step.do()
		text, err := json.Marshal(told)
		require.NoError(t, err)
		require.NotContains(t, string(text), "CANARY", step.name)
		require.Equal(t, step.want, takeEvents(t, &told), step.name)
	}
}

func TestAnEventHasTheRequestIdOfItsProblem(t *testing.T) {
	var told []authflow.Event
	s := newSite(t, audited(&told))
	w := s.call("CANARY-wrong", http.MethodGet, "/integrations", "")
	var problem struct {
		ID string `json:"request_id"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &problem))
	require.Equal(t, problem.ID, told[0].Request)
}

func TestForwardedHeadersDoNotNameTheClient(t *testing.T) {
	var told []authflow.Event
	s := newSite(t, audited(&told))
	r := s.form("/integrations/sign-in", "token", operatorToken)
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	r.Header.Set("Forwarded", "for=203.0.113.9")
	s.do(r)
	require.Len(t, takeEvents(t, &told), 1)
}
