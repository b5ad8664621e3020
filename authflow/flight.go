package authflow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// The budgets of one flight. What differs between the classes of refresh tokens is in timing.go.
const (
	flightTime = 3 * time.Minute // waiting for others and for the store; a POST and the storing of its token have their own
	storeTime  = time.Second     // one store operation
	pollMin    = 20 * time.Millisecond
	pollMax    = 500 * time.Millisecond
)

// reason tells why a flight was started.
type reason int

const (
	refreshBehind     reason = iota // a request found the token past its soft threshold
	refreshDue                      // the sweep did
	refreshNow                      // a request waits: the token is past its hard threshold
	refreshRejected                 // the upstream refused the token
	refreshByOperator               // an operator asked
)

// errYielded ends a flight of the sweep for which another replica holds the lease and nobody here waits.
var errYielded = errors.New("another replica refreshes")

// flight is one attempt at a new token. Its waiters share it; none may cancel it.
type flight struct {
	why     reason
	seen    *snapshot // what the one who started it knew
	began   time.Time
	waiters atomic.Int32
	place   place         // in Broker.posts
	urged   place         // in Broker.urged
	hurry   chan struct{} // closed when an operator joins,
	hurried bool          // and this set; the conn's mu guards it

	leased atomic.Bool // it holds the lease: what the store has lost, it writes back itself

	wake chan struct{} // holds one word that the record has changed

	// Only the flight's own goroutine uses these.
	fence    int64     // of the lease under which it POSTs
	until    time.Time // another holder's POST may be on its way until then
	admitted bool      // under this lease: see Broker.admitted
	down     bool

	done chan struct{} // closed when the following are set
	snap *snapshot     // a snapshot worth having, if err is nil
	err  error

	over chan struct{} // closed when the flight is not under way any more: it may go on for a while after it has landed
}

// joinLocked counts those who wait for the outcome, with c.mu held. For them the flight passes in front of others that wait.
func (b *Broker) joinLocked(f *flight, why reason) {
	if why == refreshBehind || why == refreshDue {
		return
	}
	f.waiters.Add(1)
	f.place.raise(b.posts)
	if why == refreshByOperator && !f.hurried {
		f.hurried = true
		close(f.hurry)
	}
}

func (f *flight) land(snap *snapshot, err error) {
	if f.down {
		return
	}
	f.down = true
	f.snap, f.err = snap, err
	close(f.done)
}

// fly starts a flight, or joins the one under way. Where memory has already got something newer than seen, it is the result.
func (b *Broker) fly(ctx context.Context, c *conn, m *managed, why reason, seen *snapshot) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if f := c.flight; f != nil {
		b.joinLocked(f, why)
		return f, nil
	}
	f := &flight{
		why: why, seen: seen, began: now, wake: make(chan struct{}, 1),
		done: make(chan struct{}), hurry: make(chan struct{}), over: make(chan struct{}),
	}
	if cur := c.snap.Load(); why != refreshByOperator && cur.valid(now) && (!seen.known() || newer(cur.record(), seen.record())) {
		f.land(cur, nil)
		close(f.over)
		return f, nil
	}
	if why == refreshRejected {
		if err := c.mayForceLocked(seen, now); err != nil {
			return nil, err
		}
	}
	b.joinLocked(f, why)
	c.flight = f
	ctx = context.WithoutCancel(ctx)
	b.spawn(func() {
		defer func() {
			if v := recover(); v != nil {
				// The outcome is unknown; the lease is left to run out. The value may hold anything: only its type is logged.
				b.log.Error("panic in a refresh", "connection", c.slot.String(), "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
				f.land(nil, &Error{Reason: ErrProvider, Slot: c.slot, RetryAfter: retryUrgent})
			}
			c.mu.Lock()
			c.flight = nil
			c.mu.Unlock()
			close(f.over)
		}()
		b.run(ctx, c, m, f)
	})
	return f, nil
}

// flying returns the flight under way, if any: one that has landed and goes on storing too.
func (c *conn) flying() *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flight
}

// run is a flight: get a place and the lease, refresh under it, release both; again, while another replica is at work. Nobody
// holds a lease while it waits for a place.
func (b *Broker) run(ctx context.Context, c *conn, m *managed, f *flight) {
	ctx, cancel := context.WithTimeout(ctx, flightTime)
	defer cancel()
	defer f.leave()
	for poll := pollMin; ; poll = min(2*poll, pollMax) {
		if !b.board(ctx, c, m, f) {
			return
		}
		lease, err := b.acquire(ctx, c.slot, m.timing().lease)
		if err != nil {
			f.leave()
		}
		switch {
		case err == nil:
			f.fence, f.admitted = lease.Fence, false
			f.leased.Store(true)
			next := changed
			for next == changed {
				next = b.refreshLeased(ctx, c, m, f, &lease)
			}
			f.leave()
			f.leased.Store(false)
			b.release(lease)
			if next == landed || b.sitOut(ctx, c, m, f) {
				return
			}
			continue
		case !errors.Is(err, tokenstore.ErrHeld):
			f.land(nil, b.readError(c.slot, err))
			return
		case f.waiters.Load() == 0:
			f.land(nil, errYielded)
			return
		case b.overtaken(ctx, c, m, f):
			return
		}
		if !pause(ctx, poll/2+rand.N(poll/2)) {
			f.land(nil, &Error{ErrPending, c.slot, "another replica's refresh goes on", pendingHint})
			return
		}
	}
}

// step is how one pass under the lease ended.
type step int

const (
	landed  step = iota // the flight has landed
	changed             // the record was changed beside us: read it and decide anew
	waiting             // another holder's POST may be on its way: let go of the lease and come back
)

// overtaken looks whether the holder of the lease is done: then its outcome is ours.
func (b *Broker) overtaken(ctx context.Context, c *conn, m *managed, f *flight) bool {
	snap, err := b.fetch(ctx, c, m)
	if err != nil {
		if !errors.Is(err, tokenstore.ErrNotFound) {
			f.land(nil, b.readError(c.slot, err))
			return true
		}
		return false // not minted yet
	}
	if b.settled(f, snap) {
		f.land(snap, nil)
		return true
	}
	if fail := snap.record().Failure; fail != nil && fail.At.After(f.began) {
		f.land(nil, b.failed(m, c, f, snap))
		return true
	}
	return false
}

// settled tells whether snap is what the flight was to bring about: nothing is left to do.
func (b *Broker) settled(f *flight, snap *snapshot) bool {
	now := time.Now()
	if !snap.valid(now) {
		return false
	}
	if f.seen.known() && newer(snap.record(), f.seen.record()) {
		return true // someone else was here; were it due again already, the next request would say so
	}
	if f.why == refreshRejected || f.why == refreshByOperator {
		return false
	}
	if f.why == refreshDue && snap.in.timing().dangling(snap.record(), now) {
		return false
	}
	return snap.soft.after(now)
}

// fetch reads the record, for a flight: memory learns it, and nothing older is used.
func (b *Broker) fetch(ctx context.Context, c *conn, m *managed) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	epoch := c.epoch.Load()
	rec, err := b.get(ctx, c.slot)
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		return nil, err
	}
	snap := b.learn(c, m, rec, err, epoch)
	if !snap.known() {
		return nil, tokenstore.ErrNotFound
	}
	return snap, nil
}

// pause waits, and tells whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
