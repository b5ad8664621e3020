package authflow

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// How long memory is believed. A disconnect or reconnect elsewhere is felt within maxAge even if the Feed says nothing.
const (
	refreshAge  = 2500 * time.Millisecond // a snapshot older than this is re-read behind the request that uses it
	maxAge      = 5 * time.Second         // one older than this before it is used
	readWait    = 400 * time.Millisecond  // one look at the store, so that a request without a token fails within half a second
	storePause  = time.Second             // after the store could not be reached, requests do not ask it again for so long
	useStep     = time.Hour               // how exact Record.Used is
	behindEvery = 500 * time.Millisecond  // how often a connection's requests look whether a refresh may begin behind them
	keepUsed    = 10 * time.Minute        // a connection unused for so long leaves memory
	keepAbsent  = time.Minute             // and so does the knowledge that there is none

	// aloneAge replaces refreshAge where nobody else writes to the store: the look is for noteUse alone.
	aloneAge = 15 * time.Minute
)

// ages are how long memory is believed. The sole holder of a store learns nothing from asking it: every change is its own.
type ages struct{ refresh, max time.Duration }

func agesOf(alone bool) ages {
	if alone {
		return ages{aloneAge, math.MaxInt64}
	}
	return ages{refreshAge, maxAge}
}

// conn is a connection in memory.
type conn struct {
	slot tokenstore.Slot
	snap atomic.Pointer[snapshot] // nil: not read yet
	used atomic.Int64             // unix seconds of the last use by a request
	gone atomic.Bool              // it has left memory: see connTable

	checked atomic.Int64 // unix nanoseconds of when the store last confirmed snap; 0: not to be believed unasked
	looked  atomic.Int64 // unix nanoseconds of when a request last looked whether a refresh may begin behind it
	epoch   atomic.Int64 // counts what a read begun earlier must not undo, in steps of doubted and of learned

	mu         sync.Mutex          // guards what follows
	flight     *flight             // the refresh under way, if any
	read       *read               // the look at the store under way, if any
	forced     time.Time           // when a rejected token last caused a refresh
	quietUntil time.Time           // the sweep, and refreshes behind requests, leave it alone
	failure    *tokenstore.Failure // of minting a first token: there is no record yet to keep it in
}

// Steps of conn.epoch.
const (
	doubted = 1       // something may have changed: a read begun earlier is to be repeated at the next use
	learned = 1 << 32 // memory knows more than a read begun earlier
)

// read is one look at the store that several callers share.
type read struct {
	done chan struct{} // closed when err is set
	err  error
}

// health remembers whether the store answers.
type health struct {
	downUntil atomic.Int64 // unix nanoseconds
	lastOK    atomic.Int64
	back      atomic.Int64 // when it answered again last
	away      atomic.Bool  // for the log: what was said last
}

// note remembers the outcome of an operation that began then. A store that has answered another one since is not away, only
// slow, or this process is. It returns whether this is news.
func (h *health) note(err error, began time.Time) (news bool) {
	now := time.Now()
	if !errors.Is(err, tokenstore.ErrUnavailable) {
		h.downUntil.Store(0)
		h.lastOK.Store(now.UnixNano())
		if !h.away.Load() {
			return false
		}
		h.back.Store(now.UnixNano()) // before anybody may take it for one that was there all the time
		return h.away.CompareAndSwap(true, false)
	}
	if ahead := h.lastOK.Load() - began.UnixNano(); 0 <= ahead && ahead < int64(time.Minute) { // not by a clock that was put back
		return false
	}
	h.downUntil.Store(now.Add(storePause).UnixNano())
	return h.away.CompareAndSwap(false, true)
}

// heard remembers whether the store answers, and logs when that changes.
func (b *Broker) heard(err error, began time.Time) {
	switch news := b.health.note(err, began); {
	case !news:
	case errors.Is(err, tokenstore.ErrUnavailable):
		b.log.Warn("the store cannot be reached: tokens in memory are served, nothing is refreshed", "error", err)
	default:
		b.log.Info("the store answers again")
	}
}

// down tells whether the store is not to be asked. A clock that is put back does not make the pause longer.
func (h *health) down(now time.Time) bool {
	left := h.downUntil.Load() - now.UnixNano()
	return 0 < left && left <= 2*int64(storePause) // more than one: now may be older than the pause
}

// probe lets one caller find out whether a store that was away answers again. For the others it stays down meanwhile.
func (h *health) probe(now time.Time) bool {
	until := h.downUntil.Load()
	return !h.down(now) && h.downUntil.CompareAndSwap(until, now.Add(storePause).UnixNano())
}

// looks lets one request per behindEvery look whether a refresh may begin behind it: to find that it may not costs what the
// others need not pay, and locks that they would share. A clock that is put back holds nobody up.
func (c *conn) looks(now time.Time) bool {
	last := c.looked.Load()
	if since := now.UnixNano() - last; 0 <= since && since < int64(behindEvery) {
		return false
	}
	return c.looked.CompareAndSwap(last, now.UnixNano())
}

func (b *Broker) conn(slot tokenstore.Slot) *conn {
	c, isNew := b.conns.loadOrNew(slot)
	if isNew {
		if early := b.newcomers.add(c); early != nil {
			b.dismiss(early)
		}
	}
	return c
}

func (c *conn) touch(now time.Time) {
	if s := now.Unix(); s != c.used.Load() {
		c.used.Store(s)
	}
}

// age returns how long ago the store confirmed what memory knows; below zero the clock was put back, and nobody knows.
func (c *conn) age(now time.Time) time.Duration { return now.Sub(time.Unix(0, c.checked.Load())) }

// believed tells whether what memory knows need not be asked about first.
func (c *conn) believed(now time.Time, most time.Duration) bool {
	age := c.age(now)
	return c.checked.Load() != 0 && 0 <= age && age < most
}

// freshAt tells whether what memory knows was not older than most then, in unix nanoseconds.
func (c *conn) freshAt(then int64, most time.Duration) bool {
	checked := c.checked.Load()
	return checked != 0 && then-checked <= int64(most)
}

// remembered returns what memory knows of the connection, if it need not be asked about first; else nil.
func (b *Broker) remembered(m *managed, c *conn, now time.Time) *snapshot {
	snap := c.snap.Load()
	if snap == nil || !c.believed(now, b.ages.max) {
		return nil
	}
	if c.age(now) > b.ages.refresh && !b.health.down(now) {
		b.reread(c, m)
	}
	return b.fit(c, m, snap)
}

// current returns what is known of the connection, not older than ages.max; while the store is away, what memory has. It
// returns an error where nothing may be concluded: the store is away and memory has nothing, or the record is unreadable.
func (b *Broker) current(ctx context.Context, m *managed, c *conn) (*snapshot, source, error) {
	now := time.Now()
	if snap := b.remembered(m, c, now); snap != nil {
		return snap, fromMemory, nil
	}
	snap := c.snap.Load()
	if b.health.down(now) {
		return b.unasked(c, m, snap)
	}
	if b.health.away.Load() { // it may hang again: nobody waits for what memory knows
		if known, from, err := b.unasked(c, m, snap); err == nil && (!known.known() || known.valid(now)) {
			if b.health.probe(now) {
				b.reread(c, m)
			}
			return known, from, nil
		}
	}
	r := b.reread(c, m)
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, fromStore, ctx.Err()
	}
	snap = c.snap.Load()
	switch {
	case r.err == nil:
		return b.fit(c, m, snap), fromStore, nil
	case snap.valid(now), errors.Is(r.err, tokenstore.ErrUnavailable):
		return b.unasked(c, m, snap)
	}
	return nil, fromStore, r.err
}

// unasked returns what memory has while the store is away. That an org never connected is believed only if it was fresh when
// the store last answered, and not in doubt: nobody can have connected since.
func (b *Broker) unasked(c *conn, m *managed, snap *snapshot) (*snapshot, source, error) {
	if snap == nil || !snap.known() && !c.freshAt(b.health.lastOK.Load(), b.ages.max) {
		return nil, fromMemory, tokenstore.ErrUnavailable
	}
	return b.fit(c, m, snap), fromMemory, nil
}

// fit returns the snapshot for the present integration: a reload may have changed how its token is presented.
func (b *Broker) fit(c *conn, m *managed, snap *snapshot) *snapshot {
	if snap.in == m.Integration {
		return snap
	}
	fresh := newSnapshot(m.Integration, c.slot, snap.record())
	c.snap.CompareAndSwap(snap, fresh)
	return fresh
}

// reread starts a look at the store, or joins the one under way.
func (b *Broker) reread(c *conn, m *managed) *read {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.read != nil {
		return c.read
	}
	r := &read{done: make(chan struct{})}
	c.read = r
	b.spawn(func() {
		// The waiters share it; none may cancel it.
		ctx, cancel := context.WithTimeout(context.Background(), readWait)
		defer cancel()
		epoch := c.epoch.Load()
		rec, err := b.get(ctx, c.slot)
		if err == nil || errors.Is(err, tokenstore.ErrNotFound) {
			b.learn(c, m, rec, err, epoch)
			err = nil
		}
		r.err = err
		c.mu.Lock()
		c.read = nil
		c.mu.Unlock()
		close(r.done)
		if rec != nil {
			b.noteUse(context.Background(), c, m, rec)
		}
	})
	return r
}

// get reads a record and remembers whether the store answered.
func (b *Broker) get(ctx context.Context, slot tokenstore.Slot) (*tokenstore.Record, error) {
	began := time.Now()
	rec, err := b.store.Get(ctx, slot)
	b.heard(err, began)
	return rec, err
}

// learn takes what the store said into memory: rec, or that there is none (err matches ErrNotFound). What was learned since
// epoch is not undone. Where the store has gone back (a failover lost a write), the newer record is written back instead.
func (b *Broker) learn(c *conn, m *managed, rec *tokenstore.Record, err error, epoch int64) *snapshot {
	known := c.snap.Load()
	if last := known.record(); last != nil && !errors.Is(err, tokenstore.ErrDeleted) && regressed(rec, last) {
		if c.epoch.Load() == epoch {
			b.spawn(func() { b.writeBack(c, m, last, rec) })
		}
		return known
	}
	return c.keep(newSnapshot(m.Integration, c.slot, rec), epoch)
}

// keep makes snap what memory knows, unless something was learned since epoch; it returns what memory knows now.
func (c *conn) keep(snap *snapshot, epoch int64) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.epoch.Load()
	if now/learned == epoch/learned || c.snap.Load() == nil {
		c.setLocked(snap)
		if now != epoch {
			c.checked.Store(0) // later than what memory knew, and to be asked about again at once
		}
	}
	return c.snap.Load()
}

// replace makes snap what memory knows, whatever reads are under way; it returns what memory knows now. The store has said so in
// an answer to a question that was asked in that epoch: where something may have changed since, as by a failover while this
// process stood still, it is asked again.
func (c *conn) replace(snap *snapshot, epoch int64) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.epoch.Add(learned) - learned
	c.setLocked(snap)
	if now != epoch {
		c.checked.Store(0)
	}
	return c.snap.Load()
}

// advance is replace for a successor of prev that could not be stored: what memory has learned meanwhile of a disconnect, of
// another grant or of a later refresh stands.
func (c *conn) advance(snap *snapshot, prev tokenstore.Version) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur := c.snap.Load()
	if cur != nil && (!cur.known() && prev != tokenstore.Version{} || cur.known() && newer(cur.record(), snap.record())) {
		return cur
	}
	c.epoch.Add(learned)
	c.setLocked(snap)
	return c.snap.Load()
}

// setLocked never goes back within a grant.
func (c *conn) setLocked(snap *snapshot) {
	c.checked.Store(time.Now().UnixNano())
	if cur, next := c.snap.Load().record(), snap.record(); cur != nil && next != nil && cur.Grant == next.Grant {
		if cur.Generation > next.Generation || cur.Generation == next.Generation && cur.Revision > next.Revision {
			return
		}
	}
	c.snap.Store(snap)
}

// told is doubt on the Feed's word: a flight that waits for another holder looks too.
func (c *conn) told() {
	c.doubt()
	f := c.flying()
	if f == nil {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default: // it will look once for both
	}
}

// doubt has the next use ask the store.
func (c *conn) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch.Add(doubted)
	c.checked.Store(0)
}
