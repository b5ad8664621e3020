package authflow

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// candidateLife is how long a grant by another account waits for an operator. candidateKept is how long it is kept, so that there
// is time to revoke one that nobody has confirmed.
const (
	candidateLife = 7 * 24 * time.Hour
	candidateKept = candidateLife + 7*24*time.Hour
)

// ErrNotAwaiting is the Reason of an [*Error] of Confirm and Reject: nothing waits for an operator's word; the Detail may say why.
var ErrNotAwaiting = errors.New("no consent awaits confirmation")

// Awaiting says that somebody has consented under another account than the connection's. The old grant serves until an operator
// confirms the new one.
type Awaiting struct {
	ID    string // names this consent, and opens nothing: who decides says which one he has seen
	Since time.Time
	By    string // who made the connect link
}

// candidate is a grant by another account than the connection's: it waits, sealed, on the Shelf, one per connection, and whoever takes
// it from there decides what becomes of it. It is for the grant that it was to replace and for no other: a later consent or a
// disconnect makes it void. It holds secrets: never print or log one.
type candidate struct {
	Replaces tokenstore.GrantID
	Since    time.Time
	Expires  time.Time
	Ticket   string // that it came by, spent with the confirmation
	Doubtful bool   // it may have been stored: it must not be revoked

	Grant           tokenstore.GrantID
	Access, Refresh string
	Type            string
	Expiry          time.Time
	Received        time.Time
	Scopes          []string
	Extra           map[string]string
	Account, Client string
	By              string
}

func candidateID(slot tokenstore.Slot) string {
	return "candidate:" + digest(slot.Integration, string(slot.Org))
}

// record makes the record of a candidate that becomes the connection's grant now.
func (c candidate) record(now time.Time) *tokenstore.Record {
	return &tokenstore.Record{
		Grant: c.Grant, Generation: 1, Write: rand.Text(),
		Token:  tokenstore.Token{Access: c.Access, Refresh: c.Refresh, Type: c.Type, Expiry: c.Expiry},
		Scopes: c.Scopes, Extra: c.Extra, Account: c.Account, Client: c.Client,
		Connected: now.Round(0), ConnectedBy: c.By, Refreshed: c.Received,
	}
}

// id is the candidate's for people and forms.
func (c candidate) id() string { return digest("candidate", string(c.Grant)) }

// awaits tells whether the candidate is for the grant that the connection has.
func (c candidate) awaits(grant tokenstore.GrantID, now time.Time) bool {
	return grant != "" && c.Replaces == grant && now.Before(c.Expires)
}

// otherAccount is the refusal to store a grant in place of one by another account.
type otherAccount struct{ replaces tokenstore.GrantID }

func (otherAccount) Error() string { return "the connection is another account's" }

// pinned refuses to let rec replace a grant by another account, where both are known. Where an ID token was asked for, an account
// that is not known is another: whoever consents can take openid out of the request, and the provider sends none then.
func pinned(rec *tokenstore.Record, asked bool) func(*tokenstore.Record) error {
	return func(stored *tokenstore.Record) error {
		if stored == nil || stored.Account == "" || rec.Account == "" && !asked || stored.Account == rec.Account {
			return nil
		}
		return otherAccount{stored.Grant}
	}
}

// changeCandidate applies change to what waits for the connection, nil if nothing does, and has what it returns wait instead. All
// that is put or taken goes through here, one at a time of all replicas: what comes after the look is neither taken nor overwritten.
func (b *Broker) changeCandidate(ctx context.Context, slot tokenstore.Slot, change func(context.Context, *candidate) (*candidate, error)) error {
	id := candidateID(slot)
	return b.alone(ctx, "candidate", slot, func(ctx context.Context) error {
		found, err := b.store.Peek(ctx, id)
		if err != nil {
			return err
		}
		waiting := candidateOf(found[0])
		next, err := change(ctx, waiting)
		switch {
		case err != nil || next == waiting:
			return err
		case next == nil:
			_, err := b.store.Take(ctx, id)
			return err
		}
		return shelve(ctx, b.store, id, next, max(time.Until(next.Expires), 0)+candidateKept-candidateLife)
	})
}

// await keeps rec as the connection's candidate, in place of one that waits.
func (b *Broker) await(ctx context.Context, m *managed, slot tokenstore.Slot, rec *tokenstore.Record, replaces tokenstore.GrantID, ticket string) error {
	now := time.Now().UTC()
	next := candidate{
		Replaces: replaces, Since: now, Expires: now.Add(candidateLife), Ticket: ticket,
		Grant: rec.Grant, Access: rec.Token.Access, Refresh: rec.Token.Refresh, Type: rec.Token.Type, Expiry: rec.Token.Expiry,
		Received: rec.Refreshed, Scopes: rec.Scopes, Extra: rec.Extra, Account: rec.Account, Client: rec.Client, By: rec.ConnectedBy,
	}
	var former *candidate
	err := b.changeCandidate(ctx, slot, func(_ context.Context, waiting *candidate) (*candidate, error) {
		former = waiting
		return &next, nil
	})
	if err == nil && former != nil {
		b.drop(m, slot, *former, rec)
	}
	return err
}

// Confirm makes the grant that waits for an operator's word the connection's; id is that of the Awaiting that he has seen, or
// empty for whichever waits. Exactly one of several calls at once does. It returns ErrNotAwaiting where none waits or another has
// taken its place, or where the connection has changed since: what waited is discarded then.
func (b *Broker) Confirm(ctx context.Context, slot tokenstore.Slot, id, by string) (Connection, error) {
	m, waiting, err := b.decide(ctx, slot, id)
	if err != nil {
		return Connection{}, err
	}
	ctx = context.WithoutCancel(ctx) // from here on it is kept nowhere else
	if ep, err := m.Resolve(slot.Org); err != nil || fingerprint(m.Integration, ep) != waiting.Client || m.Flow == ClientCredentials {
		return Connection{}, &Error{Reason: ErrNotAwaiting, Slot: slot, Detail: "The integration's configuration has changed since: the consent was discarded."}
	}
	var found *tokenstore.Record
	rec := waiting.record(time.Now())
	_, err = b.saveGrant(ctx, slot, rec, func(stored *tokenstore.Record) error {
		if found = stored; stored == nil || !waiting.awaits(stored.Grant, time.Now()) {
			return voided(slot)
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrNotAwaiting):
		b.drop(m, slot, waiting, found)
		return Connection{}, err
	case errors.Is(err, ErrUnreadable): // it was certainly not stored, and given back at the provider
		return Connection{}, err
	case err != nil:
		waiting.Doubtful = true
		if b.keep(ctx, slot, waiting) != nil {
			b.log.Warn("a consent that was confirmed is lost: it could not be stored", "integration", slot.Integration, "org", string(slot.Org))
		}
		return Connection{}, err
	}
	b.spend(ctx, slot, waiting.Ticket)
	b.log.Info("another account was confirmed", "integration", slot.Integration, "org", string(slot.Org), "by", by)
	return b.shown(ctx, m, slot, rec), nil
}

// Reject discards the grant that waits for an operator's word, and revokes it at the provider where there is a revocation
// endpoint; id is as in Confirm. It returns ErrNotAwaiting where none waits or another has taken its place.
func (b *Broker) Reject(ctx context.Context, slot tokenstore.Slot, id, by string) error {
	m, waiting, err := b.decide(ctx, slot, id)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	rec, err := b.readBack(ctx, slot)
	b.drop(m, slot, waiting, rec)
	if err == nil && !waiting.awaits(rec.Grant, time.Now()) || errors.Is(err, tokenstore.ErrNotFound) {
		return voided(slot)
	}
	b.log.Info("another account was rejected", "integration", slot.Integration, "org", string(slot.Org), "by", by)
	return nil
}

func voided(slot tokenstore.Slot) error {
	return &Error{Reason: ErrNotAwaiting, Slot: slot, Detail: "The connection has changed since: the consent was discarded."}
}

// keep puts a candidate back that was taken. One that has come meanwhile stays: tokenstore.ErrConflict.
func (b *Broker) keep(ctx context.Context, slot tokenstore.Slot, taken candidate) error {
	return b.changeCandidate(ctx, slot, func(_ context.Context, newer *candidate) (*candidate, error) {
		if newer != nil {
			return newer, tokenstore.ErrConflict
		}
		return &taken, nil
	})
}

// decide takes the connection's candidate, if it is the one of that id: its fate is the caller's alone.
func (b *Broker) decide(ctx context.Context, slot tokenstore.Slot, id string) (*managed, candidate, error) {
	m := b.managed(slot.Integration)
	if m == nil {
		return nil, candidate{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	var taken candidate
	err := b.changeCandidate(ctx, slot, func(_ context.Context, waiting *candidate) (*candidate, error) {
		switch {
		case waiting == nil:
			return nil, tokenstore.ErrNotFound
		case id != "" && id != waiting.id():
			return nil, &Error{Reason: ErrNotAwaiting, Slot: slot, Detail: "Another consent has come meanwhile: look at it before you decide."}
		}
		taken = *waiting
		return nil, nil
	})
	if refusal, ok := errors.AsType[*Error](err); ok {
		return nil, candidate{}, refusal
	}
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return nil, candidate{}, &Error{Reason: ErrNotAwaiting, Slot: slot}
	case err != nil:
		return nil, candidate{}, b.readError(slot, err)
	}
	return m, taken, nil
}

// clearCandidate discards what waits for the connection, if it is for another grant than the connection has by now or has waited
// for too long. A grant never comes back: what is for another one stays void.
func (b *Broker) clearCandidate(ctx context.Context, m *managed, slot tokenstore.Slot) {
	ctx, cancel := context.WithTimeout(ctx, listWork)
	defer cancel()
	var void *candidate
	var rec *tokenstore.Record
	err := b.changeCandidate(ctx, slot, func(ctx context.Context, waiting *candidate) (_ *candidate, err error) {
		if waiting == nil {
			return nil, nil
		}
		rec, err = b.readBack(ctx, slot)
		switch {
		case err != nil && !errors.Is(err, tokenstore.ErrNotFound):
			return nil, err
		case err == nil && waiting.awaits(rec.Grant, time.Now()):
			return waiting, nil
		}
		void = waiting
		return nil, nil
	})
	switch {
	case err != nil:
		b.log.Debug("a consent that is void stays until somebody looks again", "connection", slot.String(), "error", err)
	case void != nil:
		b.drop(m, slot, *void, rec)
	}
}

// drop revokes, in the background, a candidate that was taken and will not be stored. One of the same account as rec is only
// forgotten: some providers revoke all that the account has given us, rec with it. One made with another client is never sent
// to the present one's endpoint.
func (b *Broker) drop(m *managed, slot tokenstore.Slot, gone candidate, rec *tokenstore.Record) {
	if !gone.Doubtful {
		b.giveBack(m, slot, gone.record(time.Now()), rec)
	}
}

// giveBack does the same with a grant that was never stored.
func (b *Broker) giveBack(m *managed, slot tokenstore.Slot, gone, rec *tokenstore.Record) {
	ep, err := m.Resolve(slot.Org)
	if rec != nil && rec.Account == gone.Account || err != nil || fingerprint(m.Integration, ep) != gone.Client {
		return
	}
	b.spawn(func() { b.discard(m, slot, gone) })
}

// candidateOf reads a candidate; nil: none, or none that can be read.
func candidateOf(raw []byte) *candidate {
	var c candidate
	if raw == nil || json.Unmarshal(raw, &c) != nil {
		return nil
	}
	return &c
}
