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

// withHistory gives acme at Microsoft_Graph a history.
func withHistory(events []authflow.Event, err error) func(*console.Config) {
	return func(cfg *console.Config) {
		cfg.Audit.History = func(_ context.Context, slot tokenstore.Slot) ([]authflow.Event, error) {
			if slot != (tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}) {
				return nil, nil
			}
			return events, err
		}
	}
}

var acmePast = []authflow.Event{
	{Action: authflow.ActionRefresh, Actor: authflow.Itself, Outcome: "needs_reconnect", Detail: "invalid_grant"},
	{Outcome: authflow.Unreadable},
	{Action: "of_the_future", Actor: "ops <b>", Outcome: "store_unavailable"},
	{
		Time: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC), Action: authflow.ActionConnect, Actor: "ops", Link: "link-7",
		Slot: tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}, Outcome: authflow.OK, Address: "192.0.2.7",
	},
}

const historyPath = "/integrations/Microsoft_Graph/history?org=acme"

func TestHistoryPageTellsWhoDidWhat(t *testing.T) {
	s := newSite(t, withHistory(acmePast, nil))
	require.Contains(t, s.get(historyPath).Body.String(), signInForm)
	s.signIn()
	w := s.get(historyPath + "&q=ac")
	require.Equal(t, http.StatusOK, w.Code)
	page := w.Body.String()
	for _, want := range []string{
		`<td class="what">Connect</td>`, "20 Nov 2026, 10:00:00 UTC", "by link <code>link-7</code>", "from 192.0.2.7", ">Done<",
		"bifrost itself", ">needs_reconnect<", "invalid_grant", "of the future", "ops &lt;b&gt;", "The token store is unavailable", "cannot be read",
		`href="/integrations?q=ac"`,
	} {
		require.Contains(t, page, want)
	}
	require.Contains(t, s.get("/integrations/Microsoft_Graph/history?org=@global").Body.String(), "Nothing has been done with this connection yet")
	require.Contains(t, s.get("/integrations?q=acme").Body.String(), `href="/integrations/Microsoft_Graph/history?org=acme&amp;q=acme"`)
}

// An operator who came too late read "Another account confirmed" beside the failure.
func TestHistoryDoesNotCallDoneWhatFailed(t *testing.T) {
	for action, want := range map[authflow.Action]string{
		authflow.ActionAccountConfirmed: "Confirm another account", authflow.ActionAccountRejected: "Reject another account",
		authflow.ActionLinkMade: "Make a connect link", authflow.ActionLinkRevoked: "Revoke connect links",
	} {
		s := newSite(t, withHistory([]authflow.Event{{Action: action, Actor: "ops", Outcome: "not_found"}}, nil))
		page := s.signIn().get(historyPath).Body.String()
		require.Contains(t, page, `<td class="what">`+want+`</td>`)
		require.Contains(t, page, ">not_found<")
	}
}

func TestHistoryOfTheAPIHasTheLinesOfTheAuditLog(t *testing.T) {
	s := newSite(t, withHistory(acmePast, nil))
	w := s.call(operatorToken, http.MethodGet, "/integrations/Microsoft_Graph/connections/acme/history", "")
	require.Equal(t, http.StatusOK, w.Code)
	var body struct{ Events []json.RawMessage }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	require.Len(t, body.Events, len(acmePast))
	for i, e := range acmePast {
		line, err := json.Marshal(e)
		require.NoError(t, err)
		require.JSONEq(t, string(line), string(body.Events[i]))
	}
	require.JSONEq(t, `{"events":[]}`, s.call(operatorToken, http.MethodGet, "/integrations/Machine/connections/x/history", "").Body.String())
}

func TestHistoryThatCannotBeShown(t *testing.T) {
	path := "/integrations/Microsoft_Graph/connections/acme/history"
	requireProblem(t, newSite(t).call(operatorToken, http.MethodGet, path, ""), http.StatusNotImplemented, "not_supported")
	s := newSite(t, withHistory(nil, tokenstore.ErrUnavailable))
	requireProblem(t, s.call(operatorToken, http.MethodGet, path, ""), http.StatusServiceUnavailable, "store_unavailable")
	requireProblem(t, s.call(operatorToken, http.MethodGet, "/integrations/Microsoft_Graph/connections/%20/history", ""), http.StatusBadRequest, "org_invalid")
	require.Equal(t, http.StatusServiceUnavailable, s.signIn().get(historyPath).Code)
	require.NotContains(t, newSite(t).signIn().get("/integrations").Body.String(), "/history")
}
