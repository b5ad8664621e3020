package authflow

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// A failover may lose writes that the store has acknowledged: a token that was refreshed, a grant, an Intent. The processes
// that remember them put it right.
const (
	lately        = 10 * time.Minute // what changed before this is not lost any more
	recheckAtOnce = 8
	recheckRounds = 60 // once per storePause, until each connection that changed lately is known to be stored
)

// regressed tells whether the store holds less than was known to be stored: no record at all, an earlier token or an earlier
// write of the same grant, or the grant before it. Revisions count the writes of a Slot, but begin anew after a disconnect:
// an earlier grant is one by the time of its consent too.
func regressed(stored, known *tokenstore.Record) bool {
	switch {
	case stored == nil:
		return true
	case stored.Grant != known.Grant:
		return stored.Revision < known.Revision && stored.Connected.Before(known.Connected)
	case newer(stored, known):
		return false
	}
	return newer(known, stored) || stored.Revision < known.Revision
}

// restore writes a newer record back over what a store that has gone back holds (nil: nothing), and returns it.
func (b *Broker) restore(ctx context.Context, slot tokenstore.Slot, known, stored *tokenstore.Record) (*tokenstore.Record, error) {
	next := *known
	var prev tokenstore.Version
	if stored != nil {
		prev = stored.Version()
	}
	if err := b.save(ctx, slot, &next, prev); err != nil {
		return nil, err
	}
	b.log.Warn("the store had lost what was written last; it is written back", "connection", slot.String(), "generation", next.Generation)
	return &next, nil
}

// writeBack is restore behind a request. A flight that holds the lease does it itself; one that waits for the lease may wait for
// long, and is no reason not to.
func (b *Broker) writeBack(c *conn, m *managed, known, stored *tokenstore.Record) {
	if f := c.flying(); f != nil && f.leased.Load() {
		return
	}
	epoch := c.epoch.Load()
	rec, err := b.restore(context.Background(), c.slot, known, stored)
	if err != nil {
		b.log.Debug("a lost write was not written back yet", "connection", c.slot.String(), "error", err)
		return
	}
	c.keep(newSnapshot(m.Integration, c.slot, rec), epoch)
}

// changed is the Feed's word that a Slot has changed: if it is in memory, its next use asks the store. The zero Slot says that
// anything may have changed, because the Feed was cut off: perhaps by a failover.
func (b *Broker) changed(slot tokenstore.Slot) {
	if slot != (tokenstore.Slot{}) {
		if c := b.conns.load(slot); c != nil {
			c.told()
		}
		return
	}
	for c := range b.conns.all() {
		c.told()
	}
	select {
	case b.missed <- struct{}{}:
	default: // it will be looked at once for both
	}
}

// recheck reads what changed lately again, a few connections at a time, whenever the Feed may have missed something, until ctx
// ends: what a failover has lost is written back before another replica acts upon what came to light again, and
// without waiting for a request.
func (b *Broker) recheck(ctx context.Context) {
	for {
		select {
		case <-b.missed:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		for range recheckRounds {
			if b.recheckOnce(ctx, began) || !pause(ctx, storePause) {
				break
			}
		}
	}
}

// recheckOnce looks at what was not confirmed since then, as long as the store answers, and tells whether that was nothing.
func (b *Broker) recheckOnce(ctx context.Context, began time.Time) (done bool) {
	var group errgroup.Group
	group.SetLimit(recheckAtOnce)
	done = true
	for c := range b.conns.all() {
		m := b.managed(c.slot.Integration)
		if m == nil || c.checked.Load() >= began.UnixNano() || !c.snap.Load().changedSince(began.Add(-lately)) {
			continue
		}
		done = false // the next round finds out
		if ctx.Err() != nil || b.health.down(time.Now()) {
			break
		}
		group.Go(func() error {
			select {
			case <-b.reread(c, m).done:
			case <-ctx.Done():
			}
			return nil
		})
	}
	_ = group.Wait() // the functions return no error
	return done
}

// changedSince tells whether what is known was written since then, other than that the connection is in use.
func (s *snapshot) changedSince(t time.Time) bool {
	rec := s.record()
	if rec == nil {
		return false
	}
	intent, failure := rec.Intent, rec.Failure
	return rec.Refreshed.After(t) || intent != nil && intent.Deadline.After(t) || failure != nil && failure.At.After(t)
}
