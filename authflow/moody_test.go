package authflow_test

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// moody is a store that goes away, or loses answers, on command.
type moody struct {
	tokenstore.Backend
	timeouts   atomic.Int32                      // so many reads time out
	damaged    atomic.Bool                       // records cannot be read
	down       atomic.Bool                       // nothing reaches the store
	readOnly   atomic.Bool                       // nothing can be saved
	skewed     atomic.Bool                       // this machine's clock is wrong
	loseLeases atomic.Bool                       // no lease can be renewed: it is someone else's by now
	hung       atomic.Bool                       // reads are answered when their time is over: not at all
	goneBack   atomic.Pointer[tokenstore.Record] // what a failover has brought to light again, until the next save
	loseSaves  atomic.Int32                      // so many saves or deletes happen, and their answers are lost
	reads      atomic.Int32
	lists      atomic.Int32
	listTime   atomic.Int64 // how long a list takes, in nanoseconds
	takeTime   atomic.Int64 // and how long it takes to take something from the shelf
	acquires   atomic.Int32
	renewals   atomic.Int32
	since      atomic.Pointer[time.Time]             // of the leases given out
	feed       atomic.Pointer[func(tokenstore.Slot)] // of who watched last
	ahead      []tokenstore.Slot                     // due before all others
	afterGet   atomic.Pointer[func()]                // called once, after the next read and before its answer
	beforeSave atomic.Pointer[func()]                // the same for the next save,
	afterSave  atomic.Pointer[func()]                // and when it has happened
	beforeLeft atomic.Pointer[func()]                // the same when a lease is given back
}

func (m *moody) away() error {
	if m.down.Load() {
		return tokenstore.ErrUnavailable
	}
	return nil
}

func (m *moody) Get(ctx context.Context, slot tokenstore.Slot) (*tokenstore.Record, error) {
	m.reads.Add(1)
	if m.hung.Load() {
		<-ctx.Done()
		return nil, tokenstore.ErrUnavailable
	}
	if err := m.away(); err != nil {
		return nil, err
	}
	rec, err := m.Backend.Get(ctx, slot)
	if old := m.goneBack.Load(); old != nil {
		again := *old
		rec, err = &again, nil
	}
	once(&m.afterGet)
	if m.timeouts.Load() > 0 && m.timeouts.Add(-1) >= 0 {
		return nil, tokenstore.ErrUnavailable
	}
	if err == nil && m.damaged.Load() {
		return nil, &tokenstore.UnreadableError{Stored: rec.Version(), Reason: "a bit has flipped"}
	}
	return rec, err
}

// once calls what p holds, if anything, and empties it.
func once(p *atomic.Pointer[func()]) {
	if fn := p.Swap(nil); fn != nil {
		(*fn)()
	}
}

func (m *moody) Save(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) error {
	if err := m.away(); err != nil {
		return err
	}
	if m.readOnly.Load() {
		return tokenstore.ErrUnavailable
	}
	if old := m.goneBack.Load(); old != nil {
		if prev != old.Version() {
			return tokenstore.ErrConflict
		}
		lost, err := m.Backend.Get(ctx, slot)
		if err != nil {
			return err
		}
		prev = lost.Version()
		m.goneBack.Store(nil)
	}
	once(&m.beforeSave)
	if err := m.Backend.Save(ctx, slot, rec, prev); err != nil {
		return err
	}
	once(&m.afterSave)
	return m.answer()
}

// answer is nil, unless it is lost.
func (m *moody) answer() error {
	if m.loseSaves.Load() > 0 && m.loseSaves.Add(-1) >= 0 {
		return tokenstore.ErrUnavailable
	}
	return nil
}

func (m *moody) Delete(ctx context.Context, slot tokenstore.Slot, prev tokenstore.Version) error {
	if err := m.away(); err != nil {
		return err
	}
	if err := m.Backend.Delete(ctx, slot, prev); err != nil {
		return err
	}
	return m.answer()
}

func (m *moody) List(ctx context.Context, integration string) iter.Seq2[tokenstore.Slot, tokenstore.Entry] {
	if err := m.away(); err != nil {
		return func(yield func(tokenstore.Slot, tokenstore.Entry) bool) {
			yield(tokenstore.Slot{}, tokenstore.Entry{Err: err})
		}
	}
	m.lists.Add(1)
	pass(time.Duration(m.listTime.Load()))
	return m.Backend.List(ctx, integration)
}

func (m *moody) Due(ctx context.Context, now time.Time, limit int) ([]tokenstore.Slot, error) {
	if err := m.away(); err != nil {
		return nil, err
	}
	slots, err := m.Backend.Due(ctx, now, limit)
	all := append(slices.Clone(m.ahead), slots...)
	return all[:min(limit, len(all))], err
}

func (m *moody) Acquire(ctx context.Context, slot tokenstore.Slot, ttl time.Duration) (tokenstore.Lease, error) {
	m.acquires.Add(1)
	if err := m.away(); err != nil {
		return tokenstore.Lease{}, err
	}
	if m.skewed.Load() {
		return tokenstore.Lease{}, tokenstore.ErrClock
	}
	lease, err := m.Backend.Acquire(ctx, slot, ttl)
	if since := m.since.Load(); since != nil {
		lease.Since = *since
	}
	return lease, err
}

func (m *moody) Renew(ctx context.Context, lease tokenstore.Lease, ttl time.Duration) (tokenstore.Lease, error) {
	m.renewals.Add(1)
	if m.loseLeases.Load() {
		return tokenstore.Lease{}, tokenstore.ErrHeld
	}
	if err := m.away(); err != nil {
		return tokenstore.Lease{}, err
	}
	return m.Backend.Renew(ctx, lease, ttl)
}

func (m *moody) Release(ctx context.Context, lease tokenstore.Lease) error {
	once(&m.beforeLeft)
	return m.Backend.Release(ctx, lease)
}

func (m *moody) Put(ctx context.Context, id string, value []byte, life time.Duration) error {
	if err := m.away(); err != nil {
		return err
	}
	return m.Backend.Put(ctx, id, value, life)
}

func (m *moody) Peek(ctx context.Context, ids ...string) ([][]byte, error) {
	if err := m.away(); err != nil {
		return nil, err
	}
	return m.Backend.Peek(ctx, ids...)
}

func (m *moody) Take(ctx context.Context, id string) ([]byte, error) {
	pass(time.Duration(m.takeTime.Load()))
	return m.Backend.Take(ctx, id)
}

func (m *moody) Watch(ctx context.Context, changed func(tokenstore.Slot)) {
	m.feed.Store(&changed)
	m.Backend.Watch(ctx, changed)
}

func (m *moody) Note(ctx context.Context, slot tokenstore.Slot, entry []byte) error {
	if err := m.away(); err != nil {
		return err
	}
	return m.Backend.Note(ctx, slot, entry)
}

func (m *moody) Notes(ctx context.Context, slot tokenstore.Slot) ([][]byte, error) {
	if err := m.away(); err != nil {
		return nil, err
	}
	return m.Backend.Notes(ctx, slot)
}
