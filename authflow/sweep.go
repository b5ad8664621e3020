package authflow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	sweepEvery   = time.Second
	sweepBatch   = 10_000          // connections looked at per sweep, the longest due first; more while those in front cannot be refreshed
	sweepGroups  = 512             // token endpoints of one integration whose connections are swept, or wait for it
	sweepLull    = 5 * time.Second // after a refresh by the sweep failed, it leaves the connection alone for so long
	foreignLook  = time.Hour       // how often it looks whether the client of a grant is configured again
	evictEvery   = 30 * time.Second
	gaugesEvery  = 15 * time.Second // at most; counting reads every record,
	gaugesShare  = 500              // and takes up to one part in so many of the time,
	gaugesSeldom = 5 * time.Minute  // but is not left out for longer than this
	gaugesBudget = time.Minute
	lookFirst    = 10 * time.Minute // after the start, which is busy enough
	lookEvery    = 12 * time.Hour   // well within the week in which a consent that has expired can be given back
	lookAgain    = time.Hour        // after the store was away
)

// Run sweeps: it refreshes what is due, follows the Feed, lets idle connections leave memory, gives back consents that nobody has
// confirmed and keeps the gauges, until ctx ends. It returns when all that it started has ended, except flights: see [Broker.Wait].
func (b *Broker) Run(ctx context.Context) {
	var all sync.WaitGroup
	s := newSweeper(b)
	all.Go(func() {
		b.store.Watch(ctx, func(slot tokenstore.Slot) {
			b.changed(slot)
			s.share.take(slot)
		})
	})
	all.Go(func() { b.recheck(ctx) })
	all.Go(func() { b.keepGauges(ctx) })
	all.Go(func() {
		every(ctx, evictEvery, func() {
			b.evict(time.Now())
			b.breakers.forget(time.Now())
			b.proofs.forget(time.Now())
		})
	})
	all.Go(func() { b.keepLooking(ctx) })
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

// sweeper refreshes what is due, a bounded number at a time.
type sweeper struct {
	b     *Broker
	batch int        // how many connections the next sweep looks at
	turns *admission // places for the sweep's refreshes, beside the one that every refresh needs
	share share

	mu     sync.Mutex // guards what follows
	busy   map[group]bool
	groups map[string]int // of busy, by integration
}

// group is what is due of one integration at one token endpoint.
type group struct{ integration, url string }

func newSweeper(b *Broker) *sweeper {
	return &sweeper{
		b: b, batch: sweepBatch, turns: newAdmission(sweepAll, sweepEach, waitingMax),
		busy: make(map[group]bool), groups: make(map[string]int),
	}
}

// sweep starts refreshing what is due, in groups: a slow endpoint holds up its own connections only, and a slow provider those of
// its integration.
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
	groups := make(map[group][]tokenstore.Slot)
	for _, slot := range slots {
		m := b.managed(slot.Integration)
		if m == nil {
			continue // kept for the day the integration comes back
		}
		ep, err := m.Resolve(slot.Org)
		if err != nil || b.breakers.closedFor(ep.TokenURL, now) > 0 || b.breakers.rejectedFor(clientKey(m.Integration, ep), now) > 0 {
			continue
		}
		if c := b.conns.load(slot); c != nil && now.Before(c.lullUntil()) {
			continue
		}
		ready++
		of := group{slot.Integration, ep.TokenURL}
		groups[of] = append(groups[of], slot)
	}
	switch {
	case len(slots) < s.batch/2:
		s.batch = sweepBatch
	case len(slots) == s.batch && ready < s.batch/2:
		s.batch *= 2 // what is in front stays there: look behind it
	}
	for of, slots := range groups {
		if s.begin(of) {
			all.Go(func() {
				defer s.end(of)
				s.refresh(ctx, of, slots)
			})
		}
	}
}

func (s *sweeper) begin(of group) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[of] || s.groups[of.integration] >= sweepGroups {
		return false
	}
	s.busy[of] = true
	s.groups[of.integration]++
	return true
}

func (s *sweeper) end(of group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, of)
	if s.groups[of.integration]--; s.groups[of.integration] == 0 {
		delete(s.groups, of.integration)
	}
}

// refresh refreshes the slots in turn, as places become free, until their endpoint is to be left alone.
func (s *sweeper) refresh(ctx context.Context, of group, slots []tokenstore.Slot) {
	var all sync.WaitGroup
	defer all.Wait()
	s.share.list(slots)
	defer s.share.forget(slots)
	for _, slot := range slots {
		turn := new(place)
		if _, err := s.turns.enter(ctx, turn, of.integration, of.url, nil); err != nil {
			return // the process is stopping
		}
		if s.b.breakers.closedFor(of.url, time.Now()) > 0 {
			turn.leave()
			return
		}
		if !s.share.take(slot) {
			turn.leave()
			continue
		}
		all.Go(func() {
			defer turn.leave()
			s.b.refreshDue(ctx, s.b.conn(slot)) // by now: memory may have let go of it while it waited
		})
	}
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
