package authflow

import (
	"context"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	callerWait  = 10 * time.Second // how long a request waits for a refresh; the refresh goes on
	forcedEvery = time.Minute      // how often a token that the upstream refuses may cause a refresh
	pendingHint = 2 * time.Second  // Retry-After while a refresh is running
	storeHint   = 2 * time.Second  // Retry-After while the store is away
)

// source tells where a credential came from.
type source int

const (
	fromMemory source = iota
	fromStore
	fromRefresh
)

// Token returns a usable credential for the slot: the org's own connection, if it exists; if the org never connected and the
// integration allows it, the global one. A connection that exists but is broken never falls back. Token waits at most 10 s
// for a refresh. Every error is an [*Error] or ctx's.
func (b *Broker) Token(ctx context.Context, slot tokenstore.Slot) (Credential, error) {
	m := b.managed(slot.Integration)
	if m == nil {
		return Credential{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	if m.Flow == ClientCredentials {
		if slot.Org != tokenstore.Global && !m.own(slot.Org) {
			if !m.Fallback {
				return Credential{}, &Error{Reason: ErrNotConnected, Slot: slot}
			}
			slot.Org = tokenstore.Global
		}
		return b.usable(ctx, m, slot)
	}
	cred, err := b.usable(ctx, m, slot)
	if m.Fallback && slot.Org != tokenstore.Global && errors.Is(err, ErrNotConnected) {
		return b.usable(ctx, m, tokenstore.Slot{Integration: slot.Integration, Org: tokenstore.Global})
	}
	return cred, err
}

// own tells whether the org has client credentials of its own.
func (in *Integration) own(org tokenstore.Org) bool { return in.Own != nil && in.Own(org) }

// usable returns a credential of exactly this slot.
func (b *Broker) usable(ctx context.Context, m *managed, slot tokenstore.Slot) (Credential, error) {
	c := b.conn(slot)
	now := time.Now()
	c.touch(now) // before the look at the store that notes it: there may be no other before it leaves memory again
	snap, from := b.remembered(m, c, now), fromMemory
	if snap == nil {
		var err error
		if snap, from, err = b.current(ctx, m, c); err != nil {
			return Credential{}, b.readError(slot, err)
		}
		now = time.Now()
	}
	if m.AccessDies && snap.valid(now) {
		snap = b.successor(ctx, m, c, snap)
		now = time.Now()
	}
	if snap.valid(now) {
		if snap.dueAt(now) && c.looks(now) && !b.health.down(now) && b.held(m, c, snap, refreshBehind, now) == nil {
			_, _ = b.fly(ctx, c, m, refreshBehind, snap) // it reports by itself
		}
		m.counters.lookups[from].Inc()
		return Credential{slot, snap}, nil
	}
	if err := b.hopeless(m, c, snap, refreshNow); err != nil {
		return Credential{}, err
	}
	if b.health.down(now) {
		return Credential{}, &Error{ErrStore, slot, "no refresh begins that could not be stored", storeHint}
	}
	snap, err := b.wait(ctx, m, c, refreshNow, snap)
	if err != nil {
		return Credential{}, err
	}
	m.counters.lookups[fromRefresh].Inc()
	return Credential{slot, snap}, nil
}

// hopeless says why no refresh can help a connection without a valid token, or nil.
func (b *Broker) hopeless(m *managed, c *conn, snap *snapshot, why reason) error {
	rec := snap.record()
	switch {
	case m.Flow == ClientCredentials:
		return nil
	case rec == nil:
		return &Error{Reason: ErrNotConnected, Slot: c.slot}
	case rec.Failure != nil && rec.Failure.Dead:
		return &Error{Reason: ErrReconnect, Slot: c.slot, Detail: rec.Failure.Text}
	case rec.Token.Refresh == "":
		return &Error{Reason: ErrReconnect, Slot: c.slot, Detail: "the access token has expired and there is no refresh token"}
	case snap.foreign:
		return &Error{Reason: ErrReconnect, Slot: c.slot, Detail: foreignText}
	case snap.suspect && why != refreshByOperator:
		return &Error{Reason: ErrReconnect, Slot: c.slot, Detail: suspectText}
	}
	return nil
}

const (
	foreignText = "the grant was made with another client id or token URL"
	suspectText = "the store is a copy, and the refresh token may have been used since it was made: " +
		"refresh the connection to try it, at the risk of ending the grant, or reconnect"
)

// wait starts or joins a flight and returns a snapshot with a valid token.
func (b *Broker) wait(ctx context.Context, m *managed, c *conn, why reason, seen *snapshot) (*snapshot, error) {
	timer := time.NewTimer(callerWait)
	defer timer.Stop()
	for {
		if err := b.held(m, c, seen, why, time.Now()); err != nil {
			return nil, err
		}
		f, err := b.fly(ctx, c, m, why, seen)
		if err != nil {
			return nil, err
		}
		select {
		case <-f.done:
		case <-timer.C:
			return nil, &Error{ErrPending, c.slot, "the refresh goes on", pendingHint}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case f.err == nil && why == refreshByOperator && f.why != why && seen.known() && f.snap.known() && !newer(f.snap.record(), seen.record()):
			// another's flight, which was content with the token that there is
		case f.err == nil && f.snap.valid(time.Now()):
			return f.snap, nil
		case f.err == nil && c.flying() == f:
			return nil, &Error{ErrStore, c.slot, "the last token received ran out before it could be stored", storeHint}
		case f.err == nil:
			seen = f.snap // so short-lived, on so busy a machine, that it has run out since
		case why == refreshByOperator && f.why != why: // what held another's flight back does not hold back an operator's
		case !errors.Is(f.err, errYielded): // a sweep that left the work to another replica, when nobody was waiting yet
			return nil, f.err
		}
		select {
		case <-f.over: // it may still be giving its lease back
		case <-timer.C:
			return nil, &Error{ErrPending, c.slot, "the refresh goes on", pendingHint}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Replace returns a newer credential than one that the upstream answered 401 to. It refreshes at most once per connection
// and minute, however many requests were refused; where no newer token is to be had it returns an error, and the caller
// passes the upstream's 401 on.
func (b *Broker) Replace(ctx context.Context, rejected Credential) (Credential, error) {
	slot := rejected.Slot
	m := b.managed(slot.Integration)
	refused := rejected.snap.record()
	if m == nil || refused == nil {
		return Credential{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	c := b.conn(slot)
	if snap := c.snap.Load(); snap.valid(time.Now()) && newer(snap.record(), refused) {
		return Credential{slot, b.fit(c, m, snap)}, nil
	}
	c.doubt() // another replica may have replaced it
	snap, _, err := b.current(ctx, m, c)
	if err != nil {
		return Credential{}, b.readError(slot, err)
	}
	if snap.valid(time.Now()) && newer(snap.record(), refused) {
		return Credential{slot, snap}, nil
	}
	if err := b.hopeless(m, c, snap, refreshRejected); err != nil {
		return Credential{}, err
	}
	snap, err = b.wait(ctx, m, c, refreshRejected, snap)
	if err != nil {
		return Credential{}, err
	}
	if !newer(snap.record(), refused) {
		return Credential{}, &Error{Reason: ErrProvider, Slot: slot, Detail: "no newer token is to be had"}
	}
	return Credential{slot, snap}, nil
}

// newer tells whether rec is another grant, or holds a later token, than rejected. Where one refresh token was redeemed twice,
// the token received under the later lease stands.
func newer(rec, rejected *tokenstore.Record) bool {
	return rec.Grant != rejected.Grant || rec.Generation > rejected.Generation ||
		rec.Generation == rejected.Generation && rec.Fence > rejected.Fence
}

// mayForceLocked lets a refresh by a rejected token begin at most once a minute.
func (c *conn) mayForceLocked(snap *snapshot, now time.Time) error {
	last := c.forced
	if rec := snap.record(); rec != nil && rec.Forced.After(last) {
		last = rec.Forced
	}
	if since := now.Sub(last); since < forcedEvery {
		return &Error{ErrProvider, c.slot, "the upstream refuses a token that was just refreshed", forcedEvery - since}
	}
	c.forced = now
	return nil
}

// readError turns what the store said into an Error; a context's error stays one.
func (b *Broker) readError(slot tokenstore.Slot, err error) error {
	switch {
	case errors.Is(err, tokenstore.ErrUnreadable):
		return &Error{Reason: ErrUnreadable, Slot: slot, RetryAfter: storeHint}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	e := &Error{Reason: ErrStore, Slot: slot, RetryAfter: storeHint}
	if errors.Is(err, tokenstore.ErrClock) {
		e.Detail = tokenstore.ErrClock.Error()
	}
	return e
}
