package authflow

import (
	"context"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// refreshLeased is the refresh protocol under the lease: re-read, decide, declare the intent, POST once, store the outcome.
func (b *Broker) refreshLeased(ctx context.Context, c *conn, m *managed, f *flight, lease *tokenstore.Lease) step {
	rec, snap, err := b.reopen(ctx, c, m)
	if errors.Is(err, tokenstore.ErrConflict) {
		return changed
	}
	if err != nil {
		f.land(nil, b.readError(c.slot, err))
		return landed
	}
	if b.settled(f, snap) {
		f.land(snap, nil)
		return landed
	}
	now := time.Now()
	if b.notDue(ctx, c, m, f, rec, snap, now) {
		return landed
	}
	if err := b.hopeless(m, c, snap, f.why); err != nil {
		f.land(nil, err)
		return landed
	}
	ep, err := m.Resolve(c.slot.Org)
	if err != nil {
		f.land(nil, &Error{ErrUnresolved, c.slot, err.Error(), 0})
		return landed
	}
	if hold, next := b.respectIntent(ctx, c, m, f, rec, snap, lease); hold {
		return next
	}
	done, err := b.admitted(ctx, c, m, f, snap, ep, now)
	defer done()
	if err != nil {
		f.land(nil, err)
		return landed
	}
	if m.Flow == ClientCredentials {
		b.mint(ctx, c, m, f, ep, rec, *lease)
		return landed
	}
	return b.redeem(ctx, c, m, f, ep, rec, lease)
}

// reopen reads the record under the lease. rec is nil if there is none. If the store has gone back behind what this process
// knows to have been stored, the newer record is written back first: an older refresh token is never POSTed.
func (b *Broker) reopen(ctx context.Context, c *conn, m *managed) (*tokenstore.Record, *snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	known, epoch := c.snap.Load(), c.epoch.Load()
	rec, err := b.get(ctx, c.slot)
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		return nil, nil, err
	}
	if last := known.record(); last != nil && !errors.Is(err, tokenstore.ErrDeleted) && regressed(rec, last) {
		if rec, err = b.restore(ctx, c.slot, last, rec); err != nil {
			return nil, nil, err
		}
	}
	snap := newSnapshot(m.Integration, c.slot, rec)
	c.keep(snap, epoch)
	return rec, snap, nil
}

// admitted says why no POST may be made now, or nil: then this flight is the one that may. done is to be called when it is over.
func (b *Broker) admitted(ctx context.Context, c *conn, m *managed, f *flight, snap *snapshot, ep Endpoints, now time.Time) (done func(), err error) {
	done = func() {}
	if f.why == refreshByOperator {
		return done, nil
	}
	if last := snap.record(); last != nil {
		if err := backingOff(c.slot, last.Failure, f.urgency(), now); err != nil {
			return done, err
		}
	}
	if f.admitted { // it may be the one probe, and found the record changed: it is not held back by itself
		return done, nil
	}
	if wait := b.breakers.closedFor(ep.TokenURL, now); wait > 0 {
		return done, &Error{ErrProvider, c.slot, "its token endpoint keeps failing", wait}
	}
	done = b.proofs.await(ctx, clientKey(m.Integration, ep))
	now = time.Now()
	if err := b.clientRefused(ctx, c, m, ep, now); err != nil {
		return done, err
	}
	if wait := b.breakers.admit(ep.TokenURL, now); wait > 0 {
		return done, &Error{ErrProvider, c.slot, "its token endpoint keeps failing", wait}
	}
	f.admitted = true
	return done, nil
}

// urgency is the reason to go by: requests may have joined a flight that began behind them.
func (f *flight) urgency() reason {
	if f.waiters.Load() > 0 && f.why < refreshNow {
		return refreshNow
	}
	return f.why
}

// redeem declares the Intent and POSTs the refresh token, once; again at once only where the outcome is unknown and the
// provider lets a refresh token be used again. An endpoint that says that it fails is not asked again at once.
func (b *Broker) redeem(ctx context.Context, c *conn, m *managed, f *flight, ep Endpoints, rec *tokenstore.Record, lease *tokenstore.Lease) step {
	ctx = context.WithoutCancel(ctx) // however long the flight had to wait: from here on each step has a deadline of its own
	t := m.timing()
	rest := func() {}
	defer func() { rest() }()
	for try := 1; ; try++ {
		before := rec.Intent
		next, err := b.declare(ctx, c, t, rec, lease)
		switch {
		case errors.Is(err, tokenstore.ErrConflict):
			return changed // such as by a use that was noted
		case err != nil:
			f.land(nil, b.readError(c.slot, err))
			if stored, err := b.readBack(ctx, c.slot); err == nil && stored.Write == next.Write {
				b.retract(ctx, c, stored, rec) // only the answer was lost
			}
			return landed
		}
		if err := b.outlive(ctx, lease, t); err != nil {
			b.retract(ctx, c, next, rec)
			f.land(nil, &Error{ErrPending, c.slot, "the lease was lost before the POST", pendingHint})
			return landed
		}
		if try == 1 {
			rest = b.beat(*lease, t)
		}
		r := b.post(m, func() reply {
			ctx, cancel := context.WithDeadline(ctx, next.Intent.Deadline.Add(-intentGrace))
			defer cancel()
			return b.endpoint.refresh(ctx, m.Integration, ep, next.Token.Refresh)
		})
		if now := time.Now(); try == 1 && t.again(next.Intent.Began, now) && b.mayRepeat(ctx, m, f, ep, r, now) {
			next.Intent = ended(next.Intent, now)
			rec = next
			continue
		}
		f.leave()
		b.conclude(ctx, c, m, f, ep, next, before, r)
		return landed
	}
}

// mayRepeat tells whether a POST may be made again at once: its outcome is unknown, and neither its answer nor those of other
// POSTs meanwhile say that the endpoint is to be left alone. The failure counts like any other.
func (b *Broker) mayRepeat(ctx context.Context, m *managed, f *flight, ep Endpoints, r reply, now time.Time) bool {
	counted := f.why != refreshByOperator
	if r.class != ambiguous || r.status >= 400 || counted && b.breakers.admit(ep.TokenURL, now) > 0 {
		return false
	}
	b.judge(ctx, m, ep, r, counted)
	return true
}

// mint asks for a token with the client's own credentials. There is no refresh token to guard, so no Intent.
func (b *Broker) mint(ctx context.Context, c *conn, m *managed, f *flight, ep Endpoints, rec *tokenstore.Record, lease tokenstore.Lease) {
	ctx = context.WithoutCancel(ctx)
	defer b.beat(lease, m.timing())()
	r := b.post(m, func() reply { return b.endpoint.mint(ctx, m.Integration, ep) })
	f.leave()
	if r.class == dead {
		r.class = transient // there is no grant that could be dead
	}
	if rec == nil && r.class == granted {
		first := b.newGrant(m.Integration, ep, r, string(ClientCredentials))
		first.Fence = f.fence
		first.Due = due(m.Integration, c.slot, first, first.Refreshed)
		b.settle(ctx, c, m, f, ep, first, tokenstore.Version{})
		return
	}
	if rec == nil {
		b.blame(ctx, c, m, f, ep, r)
		return
	}
	next := *rec
	next.Client = fingerprint(m.Integration, ep)
	b.conclude(ctx, c, m, f, ep, &next, nil, r)
}

// post makes one POST, measured and counted.
func (b *Broker) post(m *managed, do func() reply) reply {
	began := time.Now()
	r := do()
	r.began = began
	m.counters.duration.Observe(time.Since(began).Seconds())
	m.counters.refreshed(r.class)
	return r
}
