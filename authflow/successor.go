package authflow

import (
	"context"
	"errors"
	"time"
)

// successor waits, where a refresh makes the previous access token invalid, for a refresh that is under way here or due, and
// returns what is known then: the new token, or the old one, which serves on if there is no new one for a passing reason. It
// waits as long as a caller does, and not longer than the old token lasts. A refresh of another replica is not known: if it
// kills a token in use, the upstream's 401 brings the new one.
func (b *Broker) successor(ctx context.Context, m *managed, c *conn, snap *snapshot) *snapshot {
	timer := time.NewTimer(min(callerWait, time.Until(snap.hard.time())))
	defer timer.Stop()
	for {
		f := b.awaited(c)
		if now := time.Now(); f == nil {
			if !snap.dueAt(now) || b.health.down(now) || b.held(m, c, snap, refreshBehind, now) != nil {
				break
			}
			var err error
			if f, err = b.fly(ctx, c, m, refreshNow, snap); err != nil {
				break
			}
		}
		select {
		case <-f.done:
		case <-timer.C:
			return b.fit(c, m, c.snap.Load())
		case <-ctx.Done():
			return snap
		}
		if !errors.Is(f.err, errYielded) {
			break
		}
		<-f.over // the sweep has left the work to another replica, just when nobody was waiting yet
	}
	return b.fit(c, m, c.snap.Load())
}

// awaited returns the flight under way, if any, and counts the caller among those who wait for it.
func (b *Broker) awaited(c *conn) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flight != nil {
		b.joinLocked(c.flight, refreshNow)
	}
	return c.flight
}
