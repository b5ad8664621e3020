package authflow

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// auditTrail keeps events.
type auditTrail struct {
	mu     sync.Mutex // guards events
	events []Event
}

func (a *auditTrail) add(e Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, e)
}

// take returns the events since the last call, without what differs from run to run.
func (a *auditTrail) take(t *testing.T) []Event {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	events := a.events
	a.events = nil
	for i := range events {
		require.WithinDuration(t, time.Now(), events[i].Time, time.Minute)
		require.Equal(t, "127.0.0.1", events[i].Address)
		events[i].Time, events[i].Address = time.Time{}, ""
		if events[i].Link != "" {
			events[i].Link = "a link"
		}
		text, err := json.Marshal(events[i])
		require.NoError(t, err)
		require.NotContains(t, string(text), "CANARY")
	}
	return events
}

func TestEveryCallbackIsAnEvent(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	event := func(action Action, outcome, detail string) []Event {
		return []Event{{Action: action, Actor: "ops", Link: "a link", Slot: acme, Outcome: outcome, Detail: detail}}
	}
	b := e.newBrowser()
	callback := b.consent(e.link())
	b.get(callback)
	require.Equal(t, event(ActionConnect, OK, ""), e.audited.take(t))
	b.get(callback)
	require.Equal(t, []Event{{
		Action: ActionConnectRefused, Actor: Anonymous, Slot: tokenstore.Slot{Integration: "Graph"}, Outcome: "refused", Detail: "no cookie",
	}}, e.audited.take(t))

	b.get(b.consent(e.link()))
	require.Equal(t, event(ActionReconnect, OK, ""), e.audited.take(t))

	denied := with(t, b.consent(e.link()), "code", "", "error", "access_denied", "error_description", "CANARY-description")
	b.get(denied)
	require.Equal(t, event(ActionConsentDenied, "access_denied", ""), e.audited.take(t))
	b.get(with(t, b.consent(e.link()), "code", "", "error", "CANARY-error"))
	require.Equal(t, event(ActionConsentDenied, "other", ""), e.audited.take(t))

	callback = b.consent(e.link())
	e.provider.Misbehave(authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant"))
	b.get(callback)
	require.Equal(t, event(ActionConnectFailed, "exchange_failed", "invalid_grant"), e.audited.take(t))

	callback = b.consent(e.link())
	e.provider.Misbehave(authflowtest.Without("refresh_token"))
	b.get(callback)
	require.Equal(t, event(ActionReconnect, OK, "the provider gave no refresh token"), e.audited.take(t))

	require.NoError(t, e.broker.Disconnect(t.Context(), acme, "ops"))
	b.get(b.consent(e.link()))
	require.Equal(t, event(ActionConnect, OK, ""), e.audited.take(t), "after a disconnect it is new again")
}

// A state that is known and spent says whose consent it was, also where the answer is another issuer's. What spends none names no
// connection, so that nobody can push out a history by sending one state again and again.
func TestACallbackOfAnotherIssuerNamesItsConnection(t *testing.T) {
	e := newConsentEnv(t, consentSetup{change: func(in *Integration) { in.Issuer = "https://idp.example" }})
	refused := func(detail string) Event {
		return Event{Action: ActionConnectRefused, Actor: Anonymous, Slot: tokenstore.Slot{Integration: "Graph"}, Outcome: "refused", Detail: detail}
	}
	b, other := e.newBrowser(), e.newBrowser()
	callback := with(t, b.consent(e.link()), "iss", "https://evil.example")
	for _, cookie := range b.client.Jar.Cookies(mustParse(t, callback)) {
		other.client.Jar.SetCookies(mustParse(t, callback), []*http.Cookie{{Name: cookie.Name, Value: "made-up", Path: "/"}})
	}
	other.get(callback)
	require.Equal(t, []Event{refused("other cookie")}, e.audited.take(t))
	b.get(callback)
	known := refused("other issuer")
	known.Actor, known.Link, known.Slot = "ops", "a link", acme
	require.Equal(t, []Event{known}, e.audited.take(t))
	b.get(callback)
	require.Equal(t, []Event{refused("no cookie")}, e.audited.take(t), "the state is spent, and its cookie gone")
	history, err := e.broker.History(t.Context(), acme)
	require.NoError(t, err)
	require.Len(t, history, 1)
	require.Contains(t, e.logs.String(), `"reason":"other issuer"`)
}

func TestAConsentByAnotherAccountIsAnEvent(t *testing.T) {
	e, _ := pendingAccounts(t, consentSetup{})
	events := e.audited.take(t)
	last := events[len(events)-1]
	require.Equal(t, Event{Action: ActionAccountPending, Actor: "ops", Link: "a link", Slot: acme, Outcome: OK}, last)
}

// Denying used to write a line each time, so that who holds a link could push everything else out of the connection's history.
func TestALinksHolderCannotFillTheAuditLog(t *testing.T) {
	const issuer = "https://idp.example/tenant"
	e := newConsentEnv(t, consentSetup{
		provider: authflowtest.Config{Issuer: issuer}, change: func(in *Integration) { in.Issuer = issuer },
	})
	b, link := e.newBrowser(), e.link()
	b.get(b.consent(e.link()))
	require.Len(t, e.audited.take(t), 1, "connected")
	deny := func(link string) {
		b.get(with(t, b.consent(link), "code", "", "error", "access_denied"))
	}
	for range maxTold + 15 {
		deny(link)
	}
	b.get(with(t, b.consent(link), "code", "CANARY-made-up"))
	b.get(with(t, b.consent(link), "iss", "https://evil.example"))
	told := e.audited.take(t)
	require.Len(t, told, maxTold)
	require.Empty(t, told[maxTold-2].Detail)
	require.Contains(t, told[maxTold-1].Detail, "the log alone tells")
	require.Equal(t, maxTold+15, strings.Count(e.logs.String(), "consent denied"))
	history, err := e.broker.History(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, ActionConnect, history[maxTold].Action, "it is still there")

	deny(e.link())
	require.Len(t, e.audited.take(t), 1, "another link")
	b.get(b.consent(link))
	require.Equal(t, ActionReconnect, e.audited.take(t)[0].Action, "the link connects, and that is told")
}

func TestADenialThatCannotBeCountedIsTold(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	denied := with(t, b.consent(e.link()), "code", "", "error", "access_denied")
	e.store.failing(unavailable("peek vain consents:"))
	require.Equal(t, http.StatusForbidden, b.get(denied).status)
	require.Len(t, e.audited.take(t), 1)
}

func TestFloodOfRefusedCallbacksDoesNotFillTheAuditLog(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	for range refusalBurst + 50 {
		require.Equal(t, http.StatusBadRequest, b.get(e.public+"/oauth/callback/Graph?state=x&code=y").status)
	}
	require.Less(t, len(e.audited.take(t)), refusalBurst+50)
	require.Equal(t, refusalBurst+50, e.count(resultRefused))
}

func TestALinksHolderFillsNoHistoryWithAnotherAccount(t *testing.T) {
	user := new("alice")
	e := accounts(t, user, consentSetup{})
	e.consents()
	b, link := e.newBrowser(), e.link()
	*user = "mallory"
	e.audited.take(t)
	for range maxTold + 35 {
		require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status)
	}
	told := e.audited.take(t)
	require.Len(t, told, maxTold)
	require.Contains(t, told[maxTold-1].Detail, "the log alone tells")
	history, err := e.broker.History(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, ActionConnect, history[maxTold].Action, "it is still there")
}
