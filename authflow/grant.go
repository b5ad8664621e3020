package authflow

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	grantTime  = 10 * time.Second // for storing a new grant: a person is waiting
	revokeTime = 10 * time.Second
)

// newGrant makes the record of a new grant from a token endpoint's answer.
func (b *Broker) newGrant(in *Integration, ep Endpoints, r reply, by string) *tokenstore.Record {
	rec := &tokenstore.Record{
		Grant:       tokenstore.GrantID(rand.Text()),
		Generation:  1,
		Write:       rand.Text(),
		Scopes:      in.Scopes, // RFC 6749 section 5.1: an answer that names none grants what was asked
		Account:     r.account,
		Client:      fingerprint(in, ep),
		Connected:   r.received.Round(0),
		ConnectedBy: by,
	}
	setToken(in, rec, r)
	return rec
}

// saveGrant stores rec as the slot's new grant, whatever was there, retrying for at most 10 s, and tells whether there was one. may,
// if not nil, looks at what is there (nil: nothing that can be read) before it is replaced; its error is returned, and rec is the
// caller's then. Any other grant that certainly was not stored is revoked at the provider where that is possible.
func (b *Broker) saveGrant(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, may func(*tokenstore.Record) error) (replaced bool, err error) {
	m := b.managed(slot.Integration)
	if m == nil {
		return false, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	rec.Due = due(m.Integration, slot, rec, time.Now())
	ctx, cancel := context.WithTimeout(ctx, grantTime)
	defer cancel()
	c := b.conn(slot)
	c.touch(time.Now()) // it stays in memory meanwhile
	found := former{may: may}
	for {
		epoch := c.epoch.Load()
		done, err := b.tryGrant(ctx, slot, rec, &found)
		if done {
			c.replace(newSnapshot(m.Integration, slot, rec), epoch)
			return found.grant != "" || found.damaged, nil
		}
		if err == nil {
			continue // something was written between our read and our write
		}
		if found.refused {
			return false, err
		}
		unreadable := errors.Is(err, tokenstore.ErrUnreadable)
		if unreadable || !pause(ctx, storeRetryMax) {
			if unreadable { // otherwise it may be stored: revoked, it would be a connection that is dead
				b.discard(m, slot, rec)
			}
			c.doubt()
			return false, b.readError(slot, err)
		}
	}
}

// former is what a new grant replaces: what the first attempt to store it has found. However the clocks of two replicas differ,
// that is of an earlier consent.
type former struct {
	known   bool
	grant   tokenstore.GrantID // empty: none
	damaged bool               // a record that cannot be read
	may     func(*tokenstore.Record) error
	refused bool // by may
}

// tryGrant is one attempt to store rec in place of whatever is there; not done without an error means try again.
func (b *Broker) tryGrant(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, found *former) (done bool, err error) {
	var prev tokenstore.Version
	stored, err := b.readBack(ctx, slot)
	switch {
	case found.known:
	case err == nil:
		found.known, found.grant = true, stored.Grant
	case errors.Is(err, tokenstore.ErrNotFound):
		found.known = true
	}
	if err == nil && stored.Grant == rec.Grant {
		*rec = *stored // an earlier attempt whose answer was lost, refreshed since perhaps
		return true, nil
	}
	if found.may != nil && (err == nil || errors.Is(err, tokenstore.ErrNotFound) || errors.Is(err, tokenstore.ErrUnreadable)) {
		if refusal := found.may(stored); refusal != nil {
			found.refused = true
			return false, refusal
		}
	}
	switch {
	case err == nil && stored.Grant != found.grant && stored.Connected.After(rec.Connected):
		*rec = *stored // a later consent has come between the attempts: it stands
		return true, nil
	case err == nil:
		prev = stored.Version()
	case errors.Is(err, tokenstore.ErrNotFound):
	default:
		damaged, ok := errors.AsType[*tokenstore.UnreadableError](err)
		if !ok {
			return false, err
		}
		prev, found.damaged = damaged.Stored, true // a person consented anew: that replaces what nobody can read
	}
	err = b.save(ctx, slot, rec, prev)
	if errors.Is(err, tokenstore.ErrConflict) {
		return false, nil
	}
	return err == nil, err
}

// Import stores a refresh token obtained elsewhere as a new grant, proven by one refresh first. A definite refusal is
// ErrGrantRefused and changes nothing.
func (b *Broker) Import(ctx context.Context, slot tokenstore.Slot, refreshToken, by string) (Connection, error) {
	m := b.managed(slot.Integration)
	if m == nil {
		return Connection{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	ep, err := m.Resolve(slot.Org)
	if err != nil {
		return Connection{}, &Error{ErrUnresolved, slot, err.Error(), 0}
	}
	if now := time.Now(); b.health.down(now) {
		return Connection{}, &Error{Reason: ErrStore, Slot: slot, RetryAfter: storeHint}
	}
	lease, err := b.idle(ctx, slot, m.timing().lease)
	if err != nil {
		return Connection{}, err
	}
	defer b.release(lease)
	defer b.beat(lease, m.timing())()
	if stored, err := b.readBack(ctx, slot); err == nil && stored.Token.Refresh == refreshToken {
		return Connection{}, &Error{Reason: ErrGrantRefused, Slot: slot, Detail: "the connection has this very token: refresh it instead"}
	}
	// From here on the provider may have rotated the token: nothing may cancel it.
	ctx = context.WithoutCancel(ctx)
	r := b.post(m, func() reply { return b.endpoint.refresh(ctx, m.Integration, ep, refreshToken) })
	switch r.class {
	case granted:
		defer b.accepted(ctx, m, ep) // after storing
	case dead:
		return Connection{}, &Error{Reason: ErrGrantRefused, Slot: slot, Detail: r.text}
	case rejectedClient:
		b.judge(ctx, m, ep, r, false)
		return Connection{}, &Error{ErrClient, slot, rejectedText, clientProbe}
	default:
		return Connection{}, &Error{ErrProvider, slot, r.text, max(r.retryAfter, retryUrgent)}
	}
	rec := b.newGrant(m.Integration, ep, r, by)
	if rec.Token.Refresh == "" {
		rec.Token.Refresh = refreshToken
	}
	if _, err := b.saveGrant(ctx, slot, rec, nil); err != nil {
		return Connection{}, err
	}
	b.clearCandidate(ctx, m, slot)
	b.log.Info("a grant was imported", "integration", slot.Integration, "org", string(slot.Org), "by", by)
	return b.shown(ctx, m, slot, rec), nil
}

// idle waits until nobody refreshes the connection, for as long as a caller waits, and keeps it so until the lease is released.
func (b *Broker) idle(ctx context.Context, slot tokenstore.Slot, ttl time.Duration) (tokenstore.Lease, error) {
	for began := time.Now(); ; {
		lease, err := b.acquire(ctx, slot, ttl)
		switch {
		case err == nil:
			return lease, nil
		case !errors.Is(err, tokenstore.ErrHeld):
			return lease, b.readError(slot, err)
		case time.Since(began) > callerWait || !pause(ctx, pollMax):
			return lease, &Error{ErrPending, slot, "a refresh is under way", pendingHint}
		}
	}
}

// Refresh refreshes a connection now, for an operator: it is neither held back nor counted by a back-off.
func (b *Broker) Refresh(ctx context.Context, slot tokenstore.Slot) (Connection, error) {
	m := b.managed(slot.Integration)
	if m == nil {
		return Connection{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	if m.Flow == ClientCredentials && slot.Org != tokenstore.Global && !m.own(slot.Org) {
		return Connection{}, &Error{ErrNotConnected, slot, "this org has no client credentials of its own", 0}
	}
	c := b.conn(slot)
	c.doubt()
	snap, _, err := b.current(ctx, m, c)
	if err != nil {
		return Connection{}, b.readError(slot, err)
	}
	if err := b.hopeless(m, c, snap, refreshByOperator); err != nil {
		return Connection{}, err
	}
	fresh, err := b.wait(ctx, m, c, refreshByOperator, snap)
	if err != nil {
		return Connection{}, err
	}
	return b.shown(ctx, m, slot, fresh.record()), nil
}

// Disconnect forgets a connection, on every replica, and revokes it at the provider where there is a revocation endpoint
// (RFC 7009). A refresh on its way cannot bring it back. Disconnecting nothing is no error.
func (b *Broker) Disconnect(ctx context.Context, slot tokenstore.Slot, by string) error {
	m := b.managed(slot.Integration)
	if m == nil {
		return &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	c := b.conn(slot)
	c.touch(time.Now()) // it stays in memory meanwhile
	epoch := c.epoch.Load()
	var gone *tokenstore.Record
	for {
		rec, err := b.readBack(ctx, slot)
		if errors.Is(err, tokenstore.ErrNotFound) {
			break
		}
		var stored tokenstore.Version
		if damaged, ok := errors.AsType[*tokenstore.UnreadableError](err); ok {
			stored = damaged.Stored
		} else if err != nil {
			return b.readError(slot, err)
		} else {
			stored = rec.Version()
		}
		err = b.store.Delete(ctx, slot, stored)
		if errors.Is(err, tokenstore.ErrConflict) {
			continue
		}
		if err != nil {
			c.doubt() // it may have happened
			return b.readError(slot, err)
		}
		b.log.Info("disconnected", "integration", slot.Integration, "org", string(slot.Org), "by", by)
		gone = rec
		break
	}
	c.replace(newSnapshot(m.Integration, slot, nil), epoch)
	b.clearCandidate(context.WithoutCancel(ctx), m, slot) // nobody would look again at what waits for no connection
	if gone != nil {
		b.discard(m, slot, gone)
	}
	return nil
}

// discard revokes a grant that nobody will use, as far as the provider lets us; what fails is logged, not retried.
func (b *Broker) discard(m *managed, slot tokenstore.Slot, rec *tokenstore.Record) {
	ep, err := m.Resolve(slot.Org)
	if err != nil || ep.RevocationURL == "" {
		return
	}
	token, hint := rec.Token.Refresh, "refresh_token"
	if token == "" {
		token, hint = rec.Token.Access, "access_token"
	}
	ctx, cancel := context.WithTimeout(context.Background(), revokeTime)
	defer cancel()
	if err := b.endpoint.revoke(ctx, m.Integration, ep, token, hint); err != nil {
		b.log.Warn("the grant was not revoked at the provider", "connection", slot.String(), "error", err)
	}
}
