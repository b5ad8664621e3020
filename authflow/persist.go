package authflow

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	storeRetryMin = 50 * time.Millisecond  // between attempts to store a token received while the store is away
	storeRetryMax = 500 * time.Millisecond // short: when the store is back, this must come before anyone refreshes,
	storeFirst    = 5 * time.Second        // who leaves it so much time
)

// save is one attempt to write, remembered in health.
func (b *Broker) save(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) error {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	began := time.Now()
	err := b.store.Save(ctx, slot, rec, prev)
	if !errors.Is(err, tokenstore.ErrConflict) {
		b.heard(err, began)
	}
	return err
}

// settle stores a token that was received and lands the flight with it. While the store is away, the token is served from
// memory and storing goes on until it is stored or superseded; the flight, and so Wait, lasts until then. The log tells which
// generation the store has acknowledged.
func (b *Broker) settle(ctx context.Context, c *conn, m *managed, f *flight, ep Endpoints, next *tokenstore.Record, prev tokenstore.Version) {
	ctx = context.WithoutCancel(ctx)
	before, epoch := f.seen.record(), c.epoch.Load()
	winner, err := b.put(ctx, c.slot, next, prev)
	if err != nil {
		b.metrics.unpersisted.Inc()
		defer b.metrics.unpersisted.Dec()
		f.land(c.advance(newSnapshot(m.Integration, c.slot, next), prev), nil)
		b.log.Error("a token received cannot be stored; it is served from memory and storing goes on", "connection", c.slot.String(), "error", err)
		for wait := storeRetryMin; err != nil; wait = min(2*wait, storeRetryMax) {
			pause(ctx, wait)
			epoch = c.epoch.Load()
			winner, err = b.put(ctx, c.slot, next, prev)
		}
		b.log.Info("the token is stored", "connection", c.slot.String())
	}
	b.accepted(ctx, m, ep) // before anybody is told: another replica may be asked next
	c.mu.Lock()
	c.failure = nil
	c.mu.Unlock()
	switch {
	case winner == nil: // disconnected while the refresh was on its way
		m.counters.conflict.Inc()
		c.replace(newSnapshot(m.Integration, c.slot, nil), epoch)
		b.discard(m, c.slot, next)
		f.land(nil, &Error{Reason: ErrNotConnected, Slot: c.slot})
	case winner != next: // a reconnect, or another replica's refresh
		m.counters.conflict.Inc()
		f.land(c.replace(newSnapshot(m.Integration, c.slot, winner), epoch), nil)
	default:
		b.log.Debug("a token was refreshed", "integration", c.slot.Integration, "org", string(c.slot.Org), "generation", next.Generation)
		if before != nil && before.Failure != nil {
			b.log.Info("the connection has recovered", "integration", c.slot.Integration, "org", string(c.slot.Org))
		}
		f.land(c.replace(newSnapshot(m.Integration, c.slot, next), epoch), nil)
	}
}

// put stores next in place of prev, the record that it was made from. It returns the record that stands in the store now:
// next, or what superseded it; nil if the connection was deleted. A write whose answer was lost is recognised as ours.
func (b *Broker) put(ctx context.Context, slot tokenstore.Slot, next *tokenstore.Record, prev tokenstore.Version) (*tokenstore.Record, error) {
	for {
		err := b.save(ctx, slot, next, prev)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, tokenstore.ErrConflict) {
			return nil, err
		}
		stored, err := b.readBack(ctx, slot)
		switch {
		case errors.Is(err, tokenstore.ErrDeleted):
			return nil, nil
		case errors.Is(err, tokenstore.ErrNotFound):
			if prev == (tokenstore.Version{}) {
				return nil, nil // a tombstone of this very grant has come and gone
			}
			prev = tokenstore.Version{} // the store lost the record
		case err != nil:
			return nil, err
		case stored.Write == next.Write:
			next.Revision = stored.Revision
			return next, nil
		case stored.Grant == next.Grant && !newer(next, stored), stored.Grant != next.Grant && !regressed(stored, next):
			return stored, nil
		default: // the parent was amended meanwhile; or redeemed twice, and ours under the later lease; or the store has gone back
			if stored.Used.After(next.Used) {
				next.Used = stored.Used
			}
			prev = stored.Version()
		}
	}
}

func (b *Broker) readBack(ctx context.Context, slot tokenstore.Slot) (*tokenstore.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	return b.get(ctx, slot)
}

// change applies edit to the record as long as the store holds the generation of base, and returns the snapshot of what is
// stored then. If someone else has gone further, that is returned, with ErrConflict, and nothing is changed.
func (b *Broker) change(ctx context.Context, c *conn, m *managed, base *tokenstore.Record, edit func(*tokenstore.Record)) (*snapshot, error) {
	for cur := base; ; {
		epoch := c.epoch.Load()
		next := *cur
		next.Write = rand.Text()
		edit(&next)
		err := b.save(ctx, c.slot, &next, cur.Version())
		if err == nil {
			return c.replace(newSnapshot(m.Integration, c.slot, &next), epoch), nil
		}
		if !errors.Is(err, tokenstore.ErrConflict) {
			return nil, err
		}
		if cur, err = b.readBack(ctx, c.slot); err != nil {
			if errors.Is(err, tokenstore.ErrNotFound) {
				c.replace(newSnapshot(m.Integration, c.slot, nil), epoch)
			}
			return nil, err
		}
		if newer(cur, base) {
			return c.replace(newSnapshot(m.Integration, c.slot, cur), epoch), tokenstore.ErrConflict
		}
		if newer(base, cur) {
			return nil, tokenstore.ErrConflict // the store has gone back: the next look restores it
		}
	}
}

// noteUse writes down that the connection is in use, about once an hour: the sweep of every replica goes by it. Where a
// refresh is due, that writes it down.
func (b *Broker) noteUse(ctx context.Context, c *conn, m *managed, rec *tokenstore.Record) {
	used := time.Unix(c.used.Load(), 0)
	if used.Sub(lastUse(rec)) < useStep || c.snap.Load().dueAt(time.Now()) {
		return
	}
	_, err := b.change(ctx, c, m, rec, func(rec *tokenstore.Record) {
		rec.Used = used
		rec.Due = due(m.Integration, c.slot, rec, used)
	})
	if err != nil && !errors.Is(err, tokenstore.ErrConflict) {
		b.log.Debug("a use was not noted; the next one will be", "connection", c.slot.String(), "error", err)
	}
}
