package authflow

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// respectIntent looks at the Intent of an earlier attempt at this generation, and at what a store that was started or taken
// over may have lost of one.
//
// Where the refresh token may be used again by now, nobody waits. Otherwise a POST of another holder that may be on its way is
// waited for, and after it an unknown outcome holds the token back until its access token runs out: a token that was
// consumed must not come again while there is something to lose. Then it is POSTed all the same, for the earlier POST may never
// have been processed. If that outcome is unknown too, attempts go on as after any failure: the provider may just be
// down, and only its refusal makes the connection one to reconnect.
func (b *Broker) respectIntent(ctx context.Context, c *conn, m *managed, f *flight, rec *tokenstore.Record, snap *snapshot, lease *tokenstore.Lease) (hold bool, next step) {
	if rec == nil {
		return false, landed
	}
	t, now := m.timing(), time.Now()
	if until := t.busyUntil(rec.Intent, lease.Since, time.Unix(0, b.health.back.Load()), now); now.Before(until) {
		young := rec.Intent == nil
		if young {
			c.lull(until) // no replica may begin earlier: to ask the store again would be in vain
		}
		switch {
		case f.waiters.Load() == 0:
			f.land(nil, errYielded)
			return true, landed
		case young && f.why != refreshByOperator && snap.valid(now):
			f.land(snap, nil) // most likely there is nobody to wait for, and there is a token to use
			return true, landed
		}
		f.until = until
		return true, waiting
	}
	if rec.Intent == nil || t.again(rec.Intent.Began, now) || !snap.valid(now) || f.why == refreshByOperator {
		return false, landed
	}
	if hard := snap.hard.time(); !rec.Due.Equal(hard) {
		if _, err := b.change(ctx, c, m, rec, func(rec *tokenstore.Record) { rec.Due = hard }); err != nil {
			b.log.Debug("the sweep will look again", "connection", c.slot.String(), "error", err)
		}
	}
	f.land(snap, nil)
	return true, landed
}

// sitOut waits until f.until, or until the Feed says that the record has changed; what the Feed does not say is seen within
// maxAge. The lease is anybody's meanwhile, and the store is left in peace: thousands of connections may wait at a time. It tells
// whether the flight has landed: another holder's outcome is ours, or the time is over.
func (b *Broker) sitOut(ctx context.Context, c *conn, m *managed, f *flight) (down bool) {
	for left := time.Until(f.until); left > 0; left = time.Until(f.until) {
		timer := time.NewTimer(min(left, maxAge))
		changed := false
		select {
		case <-timer.C:
		case <-f.wake:
			changed = true
		case <-ctx.Done():
			f.land(nil, &Error{ErrPending, c.slot, "another holder's refresh may be under way", pendingHint})
			return true
		}
		timer.Stop()
		if b.overtaken(ctx, c, m, f) {
			return true
		}
		if changed {
			return false // perhaps nobody is to be waited for any more
		}
	}
	return false
}

// busyUntil returns until when another holder's POST may be on its way that must not be doubled; zero if none is. A store that
// is the one that it is since then may have lost an Intent with its lease: one that was written just before, or even since, by
// a holder that still speaks to the store's former self.
// And while the store was away, all leases may have run out: once it is back, a holder that could not store its token is let go
// first.
func (t timing) busyUntil(intent *tokenstore.Intent, since, back, now time.Time) (until time.Time) {
	if intent != nil && !t.again(intent.Began, now) {
		until = intent.Deadline
		if first := back.Add(storeFirst); first.After(until) && !back.After(now) { // not by a clock that was put back
			until = first
		}
	}
	if lost := t.over(since); !since.IsZero() && !t.again(since.Add(-intentGrace), now) && lost.After(until) {
		until = lost
	}
	return until
}

// declare writes down that rec's refresh token is about to be POSTed, and returns the record as it is stored then. An unknown
// outcome before this one keeps its beginning: the provider counts from the first use.
func (b *Broker) declare(ctx context.Context, c *conn, t timing, rec *tokenstore.Record, lease *tokenstore.Lease) (*tokenstore.Record, error) {
	now := time.Now().Round(0) // other replicas compare it with their wall clock
	next := *rec
	next.Write = rand.Text()
	next.Intent = &tokenstore.Intent{Holder: lease.Owner, Fence: lease.Fence, Began: now, Deadline: t.over(now)}
	if last := rec.Intent; last != nil && last.Began.Before(now) {
		next.Intent.Began = last.Began
	}
	if t.hasty() {
		next.Due = now.Add(t.lease) // should this process die, another one's sweep comes when its lease has run out
	}
	return &next, b.save(ctx, c.slot, &next, rec.Version())
}

// retract takes back the Intent of a POST that was not made: it must hold nobody back. If another holder has written
// since, it is gone already.
func (b *Broker) retract(ctx context.Context, c *conn, rec, before *tokenstore.Record) {
	next := *rec
	next.Intent, next.Due, next.Write = before.Intent, before.Due, rand.Text()
	if err := b.save(ctx, c.slot, &next, rec.Version()); err != nil {
		b.log.Debug("an intent that came to nothing stays until its deadline", "connection", c.slot.String(), "error", err)
	}
}

// ended returns the Intent of a POST that is over: its outcome stays unknown, but nobody has to wait for it any more.
func ended(intent *tokenstore.Intent, now time.Time) *tokenstore.Intent {
	if intent == nil {
		return nil
	}
	over := *intent
	over.Deadline = now.Round(0)
	return &over
}

// leaveIntent has the record keep what is left of our Intent. One of another holder, who has taken over meanwhile, stays.
func leaveIntent(rec *tokenstore.Record, ours, left *tokenstore.Intent) {
	if !foreignTo(rec.Intent, ours) {
		rec.Intent = left
	}
}

// foreignTo tells whether the record's Intent is another holder's than ours.
func foreignTo(intent, ours *tokenstore.Intent) bool {
	return intent != nil && (ours == nil || intent.Holder != ours.Holder || intent.Fence != ours.Fence)
}
