package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// someLink is the public id of a connect link, which opens nothing.
const someLink = "public-id-of-one_link0"

const linkURL = "https://bifrost.example.com/oauth/connect/Microsoft_Graph?ticket=CANARY-ticket"

var acmeSlot = tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}

// newLinkSite has one open link and notes what is done: the id that is revoked, "all", or the life that a link is made with.
func newLinkSite(t *testing.T, change ...func(*console.Config)) (*site, *[]string) {
	t.Helper()
	s := newSite(t, change...).signIn()
	var done []string
	made := time.Now().Add(-2 * time.Hour)
	s.broker.openLinks = []authflow.OpenLink{{ID: someLink, MadeBy: "<b>eve</b>", MadeAt: made, ExpiresAt: made.Add(24 * time.Hour)}}
	s.broker.connectLink = func(slot tokenstore.Slot, by string, life time.Duration) (authflow.Link, error) {
		require.Equal(t, acmeSlot, slot)
		require.Equal(t, "ops", by)
		done = append(done, life.String())
		return authflow.Link{ID: someLink, URL: linkURL, ExpiresAt: time.Now().Add(time.Hour)}, nil
	}
	s.broker.revoke = func(slot tokenstore.Slot, id string) error {
		require.Equal(t, acmeSlot, slot)
		if done = append(done, id); id == "" {
			done[len(done)-1] = "all"
		}
		return nil
	}
	return s, &done
}

func TestAConnectLinkIsShownOnce(t *testing.T) {
	s, done := newLinkSite(t)
	w := s.post("/integrations/Microsoft_Graph/links", "org", "acme", "view", "q=ac")
	require.Equal(t, http.StatusOK, w.Code)
	page := w.Body.String()
	require.Contains(t, page, "<code>"+linkURL+"</code>")
	require.Contains(t, page, `data-copy="`+linkURL+`"`)
	require.Contains(t, page, "It is shown this once")
	require.Contains(t, page, `href="/integrations?q=ac"`, "it leads back to where he was")
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "script-src 'self'")
	require.NotContains(t, s.get("/integrations/Microsoft_Graph/links?org=acme").Body.String(), "CANARY")
	require.NotContains(t, s.log.String(), "CANARY")
	require.Contains(t, s.log.String(), `"action":"link_made","operator":"ops","integration":"Microsoft_Graph","org":"acme","link":"`+someLink+`","outcome":"ok"`)

	s.post("/integrations/Microsoft_Graph/links", "org", "acme", "life", "168h")
	require.Equal(t, []string{"0s", "168h0m0s"}, *done)
	for _, life := range []string{"721h", "-1h", "0s", "soon"} {
		require.Equal(t, http.StatusBadRequest, s.post("/integrations/Microsoft_Graph/links", "org", "acme", "life", life).Code, life)
	}
	require.Equal(t, http.StatusBadRequest, s.post("/integrations/Machine/links", "org", "acme").Code, "nobody consents there")
	require.Len(t, *done, 2)
}

// A link that was made is shown even where the list of the others cannot be: it never could be again.
func TestAConnectLinkIsShownAlthoughTheListIsNot(t *testing.T) {
	s, _ := newLinkSite(t)
	s.broker.listError = &authflow.Error{Reason: authflow.ErrStore}
	require.Contains(t, s.post("/integrations/Microsoft_Graph/links", "org", "acme").Body.String(), linkURL)
	require.Equal(t, http.StatusServiceUnavailable, s.get("/integrations/Microsoft_Graph/links?org=acme").Code)
}

func TestOpenLinksAreShownAndRevoked(t *testing.T) {
	s, done := newLinkSite(t)
	page := s.get("/integrations/Microsoft_Graph/links?org=acme&q=ac").Body.String()
	for _, want := range []string{someLink, "&lt;b&gt;eve&lt;/b&gt;", "2 hours ago", "in 22 hours", `aria-label="Revoke the link ` + someLink + `"`, "Revoke all"} {
		require.Contains(t, page, want)
	}
	require.NotContains(t, page, "The new link")
	w := s.post("/integrations/Microsoft_Graph/revoke", "org", "acme", "link", someLink, "view", "q=ac")
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/integrations/Microsoft_Graph/links?org=acme&q=ac", w.Header().Get("Location"))
	s.post("/integrations/Microsoft_Graph/revoke", "org", "acme")
	require.Equal(t, []string{someLink, "all"}, *done)
	require.Contains(t, s.log.String(), `"action":"link_revoked","operator":"ops","integration":"Microsoft_Graph","org":"acme","link":"`+someLink+`"`)
	require.Equal(t, http.StatusNotFound, s.post("/integrations/Microsoft_Graph/revoke", "org", "acme", "link", "CANARY").Code)
	require.NotContains(t, s.log.String(), "CANARY", "what is no id is not logged")
	require.Len(t, *done, 2)
}

func TestAPIListsAndRevokesConnectLinks(t *testing.T) {
	s, done := newLinkSite(t)
	at := time.Date(2026, 11, 20, 10, 0, 0, 999, time.UTC)
	s.broker.openLinks = []authflow.OpenLink{{ID: someLink, MadeBy: "ops", MadeAt: at, ExpiresAt: at.Add(time.Hour)}}
	w := s.call(operatorToken, http.MethodGet, acme+"/connect-links", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, `{"links":[{"id":"`+someLink+`","made_by":"ops","made_at":"2026-11-20T10:00:00Z","expires_at":"2026-11-20T11:00:00Z"}]}`+"\n", w.Body.String())
	s.broker.openLinks = nil
	require.Equal(t, `{"links":[]}`+"\n", s.call(operatorToken, http.MethodGet, acme+"/connect-links", "").Body.String())

	require.Equal(t, http.StatusNoContent, s.call(operatorToken, http.MethodDelete, acme+"/connect-links/"+someLink, "").Code)
	require.Equal(t, http.StatusNoContent, s.call(operatorToken, http.MethodDelete, acme+"/connect-links", "").Code)
	require.Equal(t, []string{someLink, "all"}, *done)
	for _, id := range []string{"x", strings.Repeat("x", 23), "a%2F" + someLink[3:]} {
		requireProblem(t, s.call(operatorToken, http.MethodDelete, acme+"/connect-links/"+id, ""), http.StatusNotFound, "not_found")
	}
	s.broker.revoke = func(tokenstore.Slot, string) error { return &authflow.Error{Reason: authflow.ErrNoLink} }
	requireProblem(t, s.call(operatorToken, http.MethodDelete, acme+"/connect-links/"+someLink, ""), http.StatusNotFound, "not_found")
	requireProblem(t, s.call(operatorToken, http.MethodGet, "/integrations/Microsoft_Graph/connections/a%20b/connect-links", ""), http.StatusBadRequest, "org_invalid")
	requireProblem(t, s.call(operatorToken, http.MethodDelete, "/integrations/Nowhere/connections/acme/connect-links", ""), http.StatusNotFound, "not_found")
}

func TestTheScreenOffersLinks(t *testing.T) {
	s, _ := newLinkSite(t)
	s.broker.connections[1].OpenLinks = 2
	page := s.get("/integrations?q=ac").Body.String()
	require.Contains(t, page, `formaction="/integrations/Microsoft_Graph/links" aria-label="Connect link for acme"`)
	require.Contains(t, page, `<a href="/integrations/Microsoft_Graph/links?org=acme&amp;q=ac" aria-label="Open connect links for acme">2 open connect links</a>`)
	require.Contains(t, page, `<button formaction="/integrations/Microsoft_Graph/links">Connect link</button>`, "for an organization without a row")
	s.broker.connections[1].OpenLinks = 1
	require.Contains(t, s.get("/integrations").Body.String(), ">1 open connect link</a>")
}

func TestAnotherAccountIsConfirmedOrRejected(t *testing.T) {
	s := newSite(t).signIn()
	require.NotContains(t, s.get("/integrations").Body.String(), "Confirm")
	s.broker.connections[1].Status = authflow.Active
	s.broker.connections[1].Awaiting = &authflow.Awaiting{ID: "seen", Since: time.Now().Add(-5 * time.Minute), By: "<b>eve</b>"}
	var decided []bool
	s.broker.decide = func(slot tokenstore.Slot, id, by string, confirm bool) error {
		require.Equal(t, acmeSlot, slot)
		require.Equal(t, "ops", by)
		require.Equal(t, "seen", id)
		decided = append(decided, confirm)
		return nil
	}
	page := s.get("/integrations?show=attention").Body.String()
	for _, want := range []string{
		"<strong>Another account</strong> consented", "5 minutes ago", "by a link of &lt;b&gt;eve&lt;/b&gt;",
		`action="/integrations/Microsoft_Graph/confirm"`, `name="consent" value="seen"`, `aria-label="Confirm acme"`,
		`formaction="/integrations/Microsoft_Graph/reject" aria-label="Reject acme"`,
		"<strong>2</strong> active", "<strong>3</strong> need attention", // acme is both
	} {
		require.Contains(t, page, want)
	}
	for action, notice := range map[string]string{
		"confirm": "is connected with the other account now.", "reject": "goes on with the account that it had.",
	} {
		w := s.post("/integrations/Microsoft_Graph/"+action, "org", "acme", "view", "q=ac", "consent", "seen")
		require.Equal(t, http.StatusSeeOther, w.Code)
		require.Contains(t, s.get(w.Header().Get("Location")).Body.String(), notice)
		require.Contains(t, s.log.String(), `"action":"account_`+action+`ed","operator":"ops","integration":"Microsoft_Graph","org":"acme","outcome":"ok"`)
	}
	s.broker.decide = func(tokenstore.Slot, string, string, bool) error {
		return &authflow.Error{Reason: authflow.ErrNotAwaiting, Detail: "The connection has changed since: the consent was discarded."}
	}
	for _, action := range []string{"confirm", "reject"} {
		w := s.post("/integrations/Microsoft_Graph/"+action, "org", "acme")
		require.Equal(t, http.StatusNotFound, w.Code)
		require.Contains(t, w.Body.String(), "The connection has changed since")
	}
	require.Len(t, decided, 2)
}

func TestAPIConfirmsAndRejects(t *testing.T) {
	s := newSite(t)
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	s.broker.connections[1].Awaiting = &authflow.Awaiting{ID: "seen", Since: at, By: "ops"}
	require.Contains(t, s.call(operatorToken, http.MethodGet, acme, "").Body.String(),
		`"awaiting_confirmation":{"id":"seen","since":"2026-11-20T10:00:00Z","by":"ops"}}`)
	var ids []string
	var decided []bool
	s.broker.decide = func(slot tokenstore.Slot, id, by string, confirm bool) error {
		require.Equal(t, acmeSlot, slot)
		require.Equal(t, "other", by)
		ids, decided = append(ids, id), append(decided, confirm)
		return nil
	}
	for _, action := range []string{"confirm", "reject"} {
		w := s.call(otherToken, http.MethodPost, acme+"/"+action, "")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), `{"org":"acme","status":`)
		require.Contains(t, s.log.String(), `"action":"account_`+action+`ed","operator":"other"`)
		requireProblem(t, s.call(otherToken, http.MethodPost, acme+"/"+action, `{"force":true}`), http.StatusBadRequest, "bad_request")
		requireProblem(t, s.call(otherToken, http.MethodPost, "/integrations/Nowhere/connections/acme/"+action, ""), http.StatusNotFound, "not_found")
	}
	require.Equal(t, []bool{true, false}, decided)
	s.call(otherToken, http.MethodPost, acme+"/reject", `{"id":"seen"}`)
	require.Equal(t, []string{"", "", "seen"}, ids)
	s.broker.decide = func(tokenstore.Slot, string, string, bool) error {
		return &authflow.Error{Reason: authflow.ErrNotAwaiting}
	}
	requireProblem(t, s.call(otherToken, http.MethodPost, acme+"/confirm", ""), http.StatusNotFound, "not_found")
	requireProblem(t, s.call(otherToken, http.MethodPost, acme+"/reject", ""), http.StatusNotFound, "not_found")
}
