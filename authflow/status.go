package authflow

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Status is the state of a connection, computed from its record and stored nowhere.
type Status string

// The statuses.
const (
	NotConnected   Status = "not_connected"   // no grant
	Active         Status = "active"          // usable, and renewable if it expires
	Degraded       Status = "degraded"        // the last refresh failed for a passing reason; requests work while the token lasts
	Expiring       Status = "expiring"        // usable, but cannot be renewed, or not without an operator
	NeedsReconnect Status = "needs_reconnect" // refused by the provider, or expired without a refresh token that may be used
)

// Statuses lists every Status.
var Statuses = []Status{NotConnected, Active, Degraded, Expiring, NeedsReconnect}

// Connection is what may be shown of one connection. It contains no secret. Absent times are zero.
type Connection struct {
	Slot          tokenstore.Slot
	Status        Status
	PendingSince  time.Time // a consent is running
	LastError     *LastError
	ExpiresAt     time.Time
	LastRefresh   time.Time
	NextRefresh   time.Time
	HasRefresh    bool // whether there is a refresh token
	Scopes        []string
	ScopesMissing []string
	EntityID      string
	ConnectedAt   time.Time
	ConnectedBy   string
	Fallback      bool      // not_connected, but requests use the global connection
	Awaiting      *Awaiting // a consent under another account waits for an operator; nil: none does
	OpenLinks     int       // connect links that can be used; see ConnectLinks

	grant tokenstore.GrantID
}

// LastError is why the last refresh failed, without secrets and without provider text.
type LastError struct {
	Code string // a standard OAuth error code, or "other"
	Text string
	Time time.Time
}

// Connection returns the state of one connection; one that never connected is NotConnected, not an error.
func (b *Broker) Connection(ctx context.Context, slot tokenstore.Slot) (Connection, error) {
	m := b.managed(slot.Integration)
	if m == nil {
		return Connection{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	rec, err := b.get(ctx, slot)
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		return Connection{}, b.readError(slot, err)
	}
	return b.shown(ctx, m, slot, rec), nil
}

// shown returns the state of a connection with that record, nil if there is none. It is also what an action answers that has just
// stored rec: a store that fails at the look afterwards must not say that nothing was done.
func (b *Broker) shown(ctx context.Context, m *managed, slot tokenstore.Slot, rec *tokenstore.Record) Connection {
	list := []Connection{b.describe(m, slot, rec, time.Now())}
	b.noteShelf(ctx, m, list)
	return list[0]
}

// Connections returns the state of the integration's global connection first, then of every org that is stored or that the
// configuration names, sorted. A record that cannot be read is listed with what is known.
func (b *Broker) Connections(ctx context.Context, integration string) ([]Connection, error) {
	m := b.managed(integration)
	if m == nil {
		return nil, &Error{Reason: ErrUnknownIntegration, Slot: tokenstore.Slot{Integration: integration}}
	}
	now := time.Now()
	var list []Connection
	for slot, entry := range b.store.List(ctx, integration) {
		switch {
		case slot == (tokenstore.Slot{}):
			return nil, b.readError(tokenstore.Slot{Integration: integration}, entry.Err)
		case entry.Err != nil:
			list = append(list, Connection{
				Slot:      slot,
				Status:    NeedsReconnect, // until it can be read again, a new consent is what helps
				LastError: &LastError{Code: "other", Text: "the stored record cannot be read; it is left untouched"},
			})
		default:
			list = append(list, b.describe(m, slot, entry.Record, now))
		}
	}
	for _, org := range absent(m.Integration, list) {
		list = append(list, b.describe(m, tokenstore.Slot{Integration: integration, Org: org}, nil, now))
	}
	slices.SortFunc(list, func(x, y Connection) int {
		if x.Slot.Org == tokenstore.Global || y.Slot.Org == tokenstore.Global {
			return cmp.Compare(order(x), order(y))
		}
		return cmp.Compare(x.Slot.Org, y.Slot.Org)
	})
	b.noteShelf(ctx, m, list)
	return list, nil
}

func order(c Connection) int {
	if c.Slot.Org == tokenstore.Global {
		return 0
	}
	return 1
}

// absent returns the connections that the configuration names and list lacks: the global one, and the orgs.
func absent(in *Integration, list []Connection) []tokenstore.Org {
	there := make(map[tokenstore.Org]bool, len(list))
	for _, c := range list {
		there[c.Slot.Org] = true
	}
	var out []tokenstore.Org
	for _, org := range append([]tokenstore.Org{tokenstore.Global}, in.Orgs...) {
		if !there[org] {
			there[org] = true
			out = append(out, org)
		}
	}
	return out
}

// describe computes the state of a connection; rec is nil if there is none.
func (b *Broker) describe(m *managed, slot tokenstore.Slot, rec *tokenstore.Record, now time.Time) Connection {
	out := Connection{Slot: slot, Status: NotConnected}
	ep, unresolved := m.Resolve(slot.Org)
	if unresolved == nil {
		out.EntityID = ep.EntityID
		if wait := b.breakers.rejectedFor(clientKey(m.Integration, ep), now); wait > 0 {
			out.LastError = &LastError{Code: "invalid_client", Text: rejectedText, Time: now.Add(wait - clientProbe)}
		}
	}
	if rec == nil {
		out.Fallback = m.Fallback && slot.Org != tokenstore.Global
		if f := b.mintFailure(slot); f != nil && out.LastError == nil {
			out.LastError = &LastError{f.Code, f.Text, f.At}
		}
		return out
	}
	st := standingOf(m.Integration, slot, rec)
	out.grant = rec.Grant
	out.ExpiresAt, out.LastRefresh, out.NextRefresh = rec.Token.Expiry, rec.Refreshed, rec.Due
	out.HasRefresh = rec.Token.Refresh != ""
	out.Scopes = rec.Scopes
	out.ScopesMissing = missingScopes(m.Scopes, rec)
	out.ConnectedAt, out.ConnectedBy = rec.Connected, rec.ConnectedBy
	if rec.Failure != nil && out.LastError == nil {
		out.LastError = &LastError{rec.Failure.Code, rec.Failure.Text, rec.Failure.At}
	}
	if st.suspect && (rec.Failure == nil || !rec.Failure.Dead) {
		out.LastError = &LastError{Code: "other", Text: suspectText}
	}
	switch out.Status = statusOf(m.Integration, st, rec, now); {
	case out.LastError != nil || out.Status != NeedsReconnect:
	case st.foreign:
		out.LastError = &LastError{Code: "other", Text: foreignText}
	default:
		out.LastError = &LastError{Code: "other", Text: "the access token has expired and there is no refresh token", Time: rec.Token.Expiry}
	}
	return out
}

func statusOf(in *Integration, s standing, rec *tokenstore.Record, now time.Time) Status {
	switch f := rec.Failure; {
	case in.Flow == ClientCredentials && f != nil:
		return Degraded
	case in.Flow == ClientCredentials:
		return Active
	case f != nil && f.Dead, s.foreign:
		return NeedsReconnect
	case (rec.Token.Refresh == "" || s.suspect) && s.hard.after(now):
		return Expiring
	case rec.Token.Refresh == "", s.suspect:
		return NeedsReconnect
	case f != nil:
		return Degraded
	}
	return Active
}

// mintFailure returns why a first token by client credentials did not come, as far as this process knows.
func (b *Broker) mintFailure(slot tokenstore.Slot) *tokenstore.Failure {
	c := b.conns.load(slot)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// pendingID is the shelf id under which a running consent notes when it began, as RFC 3339.
func pendingID(slot tokenstore.Slot) string {
	return "pending:" + digest(slot.Integration, string(slot.Org))
}
