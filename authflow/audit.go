package authflow

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Action is what an Event tells of: a closed set.
type Action string

// The actions. ConnectFailed is a consent given whose connection could not be made, ConnectRefused a callback that is not of a
// consent begun in that browser, or another issuer's.
const (
	ActionConnect          Action = "connect"
	ActionReconnect        Action = "reconnect"
	ActionConsentDenied    Action = "consent_denied"
	ActionConnectFailed    Action = "connect_failed"
	ActionConnectRefused   Action = "connect_refused"
	ActionAccountPending   Action = "account_pending"
	ActionAccountConfirmed Action = "account_confirmed"
	ActionAccountRejected  Action = "account_rejected"
	ActionDisconnect       Action = "disconnect"
	ActionImport           Action = "import"
	ActionRefresh          Action = "refresh" // by hand; by the process itself only where it finds the grant dead
	ActionLinkMade         Action = "link_made"
	ActionLinkRevoked      Action = "link_revoked"
	ActionSignIn           Action = "sign_in"
	ActionSignInFailed     Action = "sign_in_failed"
	ActionSignOut          Action = "sign_out"
	ActionForbidden        Action = "forbidden"
	ActionRekey            Action = "rekey"
	ActionBackup           Action = "backup"
	ActionKeysChanged      Action = "keys_changed"
	ActionReload           Action = "reload"
	ActionReloadFailed     Action = "reload_failed"
	ActionStart            Action = "start"
	ActionStop             Action = "stop"
)

// Actors that are nobody's name.
const (
	Anonymous = "anonymous" // whoever has not said who they are, and everybody in the open mode
	Itself    = "bifrost"   // the process
)

// OK is the Outcome of what was done.
const OK = "ok"

// Event is one security-relevant action: who did what, with which connection, and how it ended. It has no field for a secret.
// Its JSON is one line of the audit log.
type Event struct {
	Time    time.Time // zero: now
	Action  Action
	Actor   string          // the operator's name, Anonymous or Itself; of a consent by link, who made the link
	Link    string          // the public id of the link by which it came; empty: by none
	Slot    tokenstore.Slot // the connection; the zero Slot, or one without an Org: none
	Outcome string          // OK, or a code of a closed set
	Detail  string          // one of our own texts; may be empty
	Request string          // the request's id; empty: it has none
	Address string          // of the client, without a port, as the connection has it; empty: no person acted
}

// maxEventText bounds each text of an event, in bytes.
const maxEventText = 256

// eventJSON is an Event as it is written.
type eventJSON struct {
	Time        string         `json:"time"`
	Action      Action         `json:"action"`
	Actor       string         `json:"actor"`
	Link        string         `json:"link,omitempty"`
	Integration string         `json:"integration,omitempty"`
	Org         tokenstore.Org `json:"org,omitempty"`
	Outcome     string         `json:"outcome"`
	Detail      string         `json:"detail,omitempty"`
	Request     string         `json:"request_id,omitempty"`
	Address     string         `json:"address,omitempty"`
}

const eventTime = "2006-01-02T15:04:05.000Z07:00"

// MarshalJSON writes the time in UTC to the millisecond, and texts cut to 256 bytes each, with everything that does not print
// escaped: no text can be more than text, in a terminal neither.
func (e Event) MarshalJSON() ([]byte, error) {
	plain, err := json.Marshal(eventJSON{
		Time: e.Time.UTC().Format(eventTime), Action: Action(cut(string(e.Action))), Actor: cut(e.Actor), Link: cut(e.Link),
		Integration: cut(e.Slot.Integration), Org: tokenstore.Org(cut(string(e.Slot.Org))),
		Outcome: cut(e.Outcome), Detail: cut(e.Detail), Request: cut(e.Request), Address: cut(e.Address),
	})
	return visible(plain), err
}

// UnmarshalJSON reads what MarshalJSON has written.
func (e *Event) UnmarshalJSON(data []byte) error {
	var in eventJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	at, err := time.Parse(eventTime, in.Time)
	*e = Event{
		Time: at.UTC(), Action: in.Action, Actor: in.Actor, Link: in.Link, Slot: tokenstore.Slot{Integration: in.Integration, Org: in.Org},
		Outcome: in.Outcome, Detail: in.Detail, Request: in.Request, Address: in.Address,
	}
	return err
}

func cut(s string) string {
	if len(s) <= maxEventText {
		return s
	}
	end := maxEventText
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// visible escapes what encoding/json leaves as it is though it does not print: DEL, the C1 controls and those that turn the
// direction of text. Outside of strings JSON has none of them.
func visible(text []byte) []byte {
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if bytes.IndexFunc(text, odd) < 0 {
		return text
	}
	var out strings.Builder
	for _, r := range string(text) {
		if !odd(r) {
			out.WriteRune(r)
		} else if r <= 0xffff {
			fmt.Fprintf(&out, `\u%04x`, r)
		} else {
			out.WriteString(`\ufffd`)
		}
	}
	return []byte(out.String())
}

// noteTime bounds how long an action waits for its entry in the connection's history.
const noteTime = 2 * time.Second

// Audit tells an event to Config.Audit, and notes it in the history of the connection that it names, for every replica. It returns
// when that is done, or has failed: an event fails no action. What was forbidden is in no history: who may change nothing must
// neither push out what others have done nor fill the store with the histories of connections that do not exist.
func (b *Broker) Audit(ctx context.Context, e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if b.cfg.Audit != nil {
		b.cfg.Audit(e)
	}
	if e.Slot.Integration == "" || e.Slot.Org == "" || e.Action == ActionForbidden {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), noteTime)
	defer cancel()
	entry, err := json.Marshal(e)
	if err == nil {
		err = b.cfg.Store.Note(ctx, e.Slot, entry)
	}
	if err != nil {
		b.log.Warn("an action is missing in its connection's history", "connection", e.Slot.String(), "action", string(e.Action), "error", err)
	}
}

// Unreadable is the Outcome of an entry of a history that cannot be read; it has nothing else.
const Unreadable = "record_unreadable"

// History returns what was done with a connection, newest first: the last 50 events of the last 400 days, those before a
// disconnect too. An error is one of the store's.
func (b *Broker) History(ctx context.Context, slot tokenstore.Slot) ([]Event, error) {
	entries, err := b.cfg.Store.Notes(ctx, slot)
	if err != nil {
		return nil, err
	}
	events := make([]Event, len(entries))
	for i, entry := range entries {
		if entry == nil || json.Unmarshal(entry, &events[i]) != nil {
			events[i] = Event{Slot: slot, Outcome: Unreadable}
		}
	}
	return events, nil
}

// Any visitor can bring callbacks that are refused: beyond so many of them the log alone tells, so that nobody can fill a disk.
const (
	refusalBurst  = 100
	refusalPeriod = 100 * time.Millisecond // one more is told per period
)

// trickle limits how many refused callbacks become events. Its zero value is ready.
type trickle struct {
	mu   sync.Mutex // guards the field below
	full time.Time  // when all refusalBurst are available again
}

// lets counts one, and says whether it is within the limit.
func (t *trickle) lets(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.full.Sub(now) > (refusalBurst-1)*refusalPeriod {
		return false
	}
	if t.full.Before(now) {
		t.full = now
	}
	t.full = t.full.Add(refusalPeriod)
	return true
}
