package authflow_test

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// events are told by several goroutines.
type events struct {
	mu   sync.Mutex // guards list
	list []authflow.Event
}

func (e *events) add(event authflow.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) all() []authflow.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]authflow.Event{}, e.list...)
}

func TestEventIsOneLineOfJSON(t *testing.T) {
	e := authflow.Event{
		Time: time.Date(2026, 11, 26, 11, 2, 3, 4_567_890, time.FixedZone("CET", 3600)), Action: authflow.ActionConnect, Actor: "ops", Link: "l1",
		Slot: slot("acme"), Outcome: authflow.OK, Detail: "d", Request: "r", Address: "192.0.2.1",
	}
	line, err := json.Marshal(e)
	require.NoError(t, err)
	require.Equal(t, `{"time":"2026-11-26T10:02:03.004Z","action":"connect","actor":"ops","link":"l1","integration":"graph","org":"acme",`+
		`"outcome":"ok","detail":"d","request_id":"r","address":"192.0.2.1"}`, string(line))

	line, err = json.Marshal(authflow.Event{Time: e.Time, Action: authflow.ActionStart, Actor: authflow.Itself, Outcome: authflow.OK})
	require.NoError(t, err)
	require.Equal(t, `{"time":"2026-11-26T10:02:03.004Z","action":"start","actor":"bifrost","outcome":"ok"}`, string(line))
}

func TestTextOfAnEventIsNothingButText(t *testing.T) {
	hostile := "ops\n{\"action\":\"start\"}\x00\x1b[2J\x7f\u009b2J\u202e\u2028\U000e0001\xff é漢 <b>"
	line, err := json.Marshal(authflow.Event{Actor: hostile, Detail: strings.Repeat("é", 1000)})
	require.NoError(t, err)
	for _, r := range string(line) {
		require.True(t, unicode.IsPrint(r), "%q", r)
	}
	require.Less(t, len(line), 1000)
	var back authflow.Event
	require.NoError(t, json.Unmarshal(line, &back))
	require.Equal(t, strings.ToValidUTF8(strings.ReplaceAll(hostile, "\U000e0001", "\ufffd"), "\ufffd"), back.Actor)
	require.Equal(t, strings.Repeat("é", 128), back.Detail, "cut between two characters")
}

func TestGrantFoundDeadIsOneEvent(t *testing.T) {
	inWorld(t, settings{provider: authflowtest.Config{Lifetime: time.Minute}}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.use(w.Broker, "acme")
		w.provider.RevokeUser("acme")
		w.sweep(w.Broker)
		pass(10 * time.Minute)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		told := w.audited.all()
		require.Len(t, told, 1)
		told[0].Time = time.Time{}
		require.Equal(t, authflow.Event{
			Action: authflow.ActionRefresh, Actor: authflow.Itself, Slot: slot("acme"), Outcome: "needs_reconnect", Detail: "invalid_grant",
		}, told[0])
	})
}

func TestRefreshesByTheSweepAndThoseByHandAreNotTheBrokersToTell(t *testing.T) {
	inWorld(t, settings{provider: authflowtest.Config{Lifetime: time.Minute}}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		pass(10 * time.Minute)
		w.provider.RevokeUser("acme")
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Empty(t, w.audited.all())
	})
}

func TestClientAddressHasNoPort(t *testing.T) {
	for remote, want := range map[string]string{"192.0.2.1:1234": "192.0.2.1", "[2001:db8::1]:1234": "2001:db8::1", "@": "@", "": ""} {
		require.Equal(t, want, authflow.ClientAddress(remote))
	}
}

func TestHistoryIsThatOfEveryReplicaAndOutlivesTheConnection(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		other, _ := w.replica()
		w.connect("acme")
		at := time.Now().UTC().Truncate(time.Millisecond)
		first := authflow.Event{Time: at, Action: authflow.ActionConnect, Actor: "ops", Slot: slot("acme"), Outcome: authflow.OK, Address: "192.0.2.1"}
		second := authflow.Event{Time: at, Action: authflow.ActionDisconnect, Actor: "other", Slot: slot("acme"), Outcome: authflow.OK}
		w.Audit(t.Context(), first)
		w.Audit(t.Context(), authflow.Event{Action: authflow.ActionSignIn, Actor: "ops", Outcome: authflow.OK})
		w.Audit(t.Context(), authflow.Event{Action: authflow.ActionForbidden, Actor: "ops", Slot: tokenstore.Slot{Integration: "graph"}})
		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "other"))
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		other.Audit(gone, second)
		for _, b := range []*authflow.Broker{w.Broker, other} {
			seen, err := b.History(t.Context(), slot("acme"))
			require.NoError(t, err)
			require.Equal(t, []authflow.Event{second, first}, seen)
		}
		require.Len(t, w.audited.all(), 4)
	})
}

// Fifty attempts of a viewer pushed out what others had done with a connection, and those for orgs that do not exist filled the store.
func TestWhatIsForbiddenIsToldAndInNoHistory(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.Audit(t.Context(), authflow.Event{Action: authflow.ActionConnect, Actor: "ops", Slot: slot("acme"), Outcome: authflow.OK})
		for range tokenstore.NotesKept {
			w.Audit(t.Context(), authflow.Event{Action: authflow.ActionForbidden, Actor: "viewer", Slot: slot("acme"), Outcome: "operator_forbidden"})
		}
		require.Len(t, w.audited.all(), 1+tokenstore.NotesKept)
		seen, err := w.History(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Len(t, seen, 1)
		require.Equal(t, "ops", seen[0].Actor)
	})
}

func TestEventThatCannotBeNotedIsToldAllTheSame(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.store.down.Store(true)
		w.Audit(t.Context(), authflow.Event{Action: authflow.ActionDisconnect, Actor: "ops", Slot: slot("acme"), Outcome: "store_unavailable"})
		require.Len(t, w.audited.all(), 1)
		require.Contains(t, w.logs.String(), "an action is missing in its connection's history")
		_, err := w.History(t.Context(), slot("acme"))
		require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	})
}

func TestEntryThatIsNoEventIsToldAsUnreadable(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		require.NoError(t, w.store.Note(t.Context(), slot("acme"), []byte("not JSON")))
		seen, err := w.History(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, []authflow.Event{{Slot: slot("acme"), Outcome: authflow.Unreadable}}, seen)
	})
}
