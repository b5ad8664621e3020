package authflow

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	sweepEvery   = time.Second
	sweepBatch   = 10_000          // connections looked at per sweep, the longest due first; more while those in front cannot be refreshed
	sweepAll     = 64              // refreshes by the sweep at a time, per process,
	sweepEach    = 8               // and per token endpoint
	sweepLull    = 5 * time.Second // after a refresh by the sweep failed, it leaves the connection alone for so long
	foreignLook  = time.Hour       // how often it looks whether the client of a grant is configured again
	evictEvery   = 30 * time.Second
	gaugesEvery  = 15 * time.Second
	gaugesBudget = time.Minute
)

// Run sweeps: it refreshes what is due, follows the Feed, lets idle connections leave memory and keeps the gauges, until ctx
// ends. It returns when all that it started has ended, except flights: see [Broker.Wait].
func (b *Broker) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { b.store.Watch(ctx, b.changed) })
	all.Go(func() { every(ctx, gaugesEvery, func() { b.gauge(ctx) }) })
	all.Go(func() { every(ctx, evictEvery, func() { b.evict(time.Now()) }) })
	s := &sweeper{b: b, batch: sweepBatch, sem: semaphore.NewWeighted(sweepAll), busy: make(map[string]bool)}
	all.Go(func() { every(ctx, sweepEvery, func() { s.sweep(ctx, &all) }) })
	all.Wait()
}

// every calls fn at once and then at every tick, until ctx ends.
func every(ctx context.Context, d time.Duration, fn func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		fn()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// changed is the Feed's word that a Slot has changed: if it is in memory, its next use asks the store.
func (b *Broker) changed(slot tokenstore.Slot) {
	if c, ok := b.conns.Load(slot); ok {
		c.(*conn).doubt()
	}
}

// sweeper refreshes what is due, a bounded number at a time.
type sweeper struct {
	b     *Broker
	sem   *semaphore.Weighted
	batch int // how many connections the next sweep looks at

	mu   sync.Mutex      // guards busy
	busy map[string]bool // token URLs whose connections are being swept
}

// sweep starts refreshing what is due, one group per token endpoint: a slow endpoint holds up its own connections only.
func (s *sweeper) sweep(ctx context.Context, all *sync.WaitGroup) {
	b, now := s.b, time.Now()
	if b.health.down(now) {
		return
	}
	slots, err := b.store.Due(ctx, now, s.batch)
	if ctx.Err() != nil {
		return // the process is stopping: that is not the store's fault
	}
	b.heard(err, now)
	if err != nil {
		b.log.Debug("a sweep was left out", "error", err)
		return
	}
	ready := 0
	groups := make(map[string][]tokenstore.Slot)
	for _, slot := range slots {
		m := b.managed(slot.Integration)
		if m == nil {
			continue // kept for the day the integration comes back
		}
		ep, err := m.Resolve(slot.Org)
		if err != nil || b.breakers.closedFor(ep.TokenURL, now) > 0 || b.breakers.rejectedFor(clientKey(m.Integration, ep), now) > 0 {
			continue
		}
		if v, ok := b.conns.Load(slot); ok && now.Before(v.(*conn).lullUntil()) {
			continue
		}
		ready++
		groups[ep.TokenURL] = append(groups[ep.TokenURL], slot)
	}
	switch {
	case len(slots) < s.batch/2:
		s.batch = sweepBatch
	case len(slots) == s.batch && ready < s.batch/2:
		s.batch *= 2 // what is in front stays there: look behind it
	}
	for url, slots := range groups {
		if s.begin(url) {
			all.Go(func() {
				defer s.end(url)
				s.refresh(ctx, slots)
			})
		}
	}
}

func (s *sweeper) begin(url string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[url] {
		return false
	}
	s.busy[url] = true
	return true
}

func (s *sweeper) end(url string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, url)
}

func (s *sweeper) refresh(ctx context.Context, slots []tokenstore.Slot) {
	var group errgroup.Group
	group.SetLimit(sweepEach)
	for _, slot := range slots {
		if s.sem.Acquire(ctx, 1) != nil {
			break // the process is stopping
		}
		group.Go(func() error {
			defer s.sem.Release(1)
			s.b.refreshDue(ctx, s.b.conn(slot)) // by now: memory may have let go of it while it waited
			return nil
		})
	}
	_ = group.Wait() // the functions return no error
}

// refreshDue runs one flight of the sweep to its end.
func (b *Broker) refreshDue(ctx context.Context, c *conn) {
	m := b.managed(c.slot.Integration)
	if m == nil {
		return
	}
	seen := c.snap.Load()
	if seen == nil {
		seen = &snapshot{}
	}
	f, err := b.fly(ctx, c, m, refreshDue, seen)
	if err != nil {
		return
	}
	select {
	case <-f.done:
		if f.err != nil && !errors.Is(f.err, errYielded) {
			c.lull(time.Now().Add(sweepLull))
		}
	case <-ctx.Done():
	}
}

func (c *conn) lull(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quietUntil = until
}

func (c *conn) lullUntil() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.quietUntil
}

// notDue ends a flight of the sweep that has nothing to refresh: the connection is idle, or no refresh can help it.
func (b *Broker) notDue(ctx context.Context, c *conn, m *managed, f *flight, rec *tokenstore.Record, snap *snapshot, now time.Time) bool {
	if f.why != refreshDue || f.waiters.Load() > 0 || rec == nil {
		return false
	}
	next := due(m.Integration, c.slot, rec, now)
	switch {
	case m.Flow == ClientCredentials && c.slot.Org != tokenstore.Global && !m.own(c.slot.Org):
		next = time.Time{} // its requests use the global connection
	case snap.foreign && m.Flow != ClientCredentials && renewable(m.Integration, rec):
		next = now.Add(foreignLook)
	case !snap.renew:
		next = time.Time{}
	case !next.IsZero() && !next.After(now):
		return false
	}
	if _, err := b.change(ctx, c, m, rec, func(rec *tokenstore.Record) { rec.Due = next }); err != nil {
		b.log.Debug("the sweep will look again", "connection", c.slot.String(), "error", err)
	}
	f.land(snap, nil)
	return true
}
