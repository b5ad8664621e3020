package authflow

import (
	"math/rand/v2"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// When a token endpoint may be asked again.
const (
	retryFirst  = 5 * time.Second // after the first failure; doubled with each further one,
	retryMax    = 5 * time.Minute // up to this
	retryUrgent = 5 * time.Second // while no token is valid, a request may cause a POST so often per connection
)

// retryAt returns when to try again after the given number of consecutive failures.
func retryAt(now time.Time, attempts int) time.Time {
	wait := retryMax
	if attempts < 8 {
		wait = min(retryFirst<<(attempts-1), retryMax)
	}
	// Full jitter would let a retry come at once; a quarter is enough to part those that failed together.
	return now.Add(wait - time.Duration(rand.Int64N(int64(wait)/4)))
}

// held says why no refresh may begin now, or nil. It only looks: see [breakers.admit].
func (b *Broker) held(m *managed, c *conn, snap *snapshot, why reason, now time.Time) error {
	if why == refreshByOperator {
		return nil
	}
	ep, err := m.Resolve(c.slot.Org)
	if err != nil {
		return &Error{ErrUnresolved, c.slot, err.Error(), 0}
	}
	if wait := b.breakers.rejectedFor(clientKey(m.Integration, ep), now); wait > 0 {
		return &Error{ErrClient, c.slot, rejectedText, wait}
	}
	if wait := b.breakers.closedFor(ep.TokenURL, now); wait > 0 {
		return &Error{ErrProvider, c.slot, "its token endpoint keeps failing", wait}
	}
	c.mu.Lock()
	failure, quiet := c.failure, c.quietUntil
	c.mu.Unlock()
	if why == refreshBehind && now.Before(quiet) {
		return &Error{ErrPending, c.slot, "the last attempt asks for a pause", quiet.Sub(now)}
	}
	if rec := snap.record(); rec != nil {
		failure = rec.Failure
		if in := rec.Intent; in != nil && why == refreshBehind && !m.timing().again(in.Began, now) {
			return &Error{Reason: ErrProvider, Slot: c.slot, Detail: "the outcome of the last refresh is unknown"}
		}
	}
	return backingOff(c.slot, failure, why, now)
}

// backingOff says how long the last failure holds back an attempt, or nil.
func backingOff(slot tokenstore.Slot, f *tokenstore.Failure, why reason, now time.Time) error {
	if f == nil || f.Dead || why == refreshByOperator {
		return nil
	}
	earliest := f.RetryAt
	if urgent := f.At.Add(retryUrgent); why == refreshNow && !f.Mandated && urgent.Before(earliest) {
		earliest = urgent
	}
	if wait := earliest.Sub(now); wait > 0 {
		return &Error{ErrProvider, slot, f.Text, wait}
	}
	return nil
}
