package storetest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Memory is a store in memory that keeps the contract, for tests that need many connections, or many stores, or one that loses
// what it acknowledged. It seals nothing. Make it inside the synctest bubble that uses it.
type Memory struct {
	// Journal is how far back FailOver can go; zero: not at all. It is set before first use.
	Journal time.Duration

	mu      sync.Mutex // guards everything below
	rows    map[tokenstore.Slot]memoryRow
	leases  map[tokenstore.Slot]tokenstore.Lease
	fence   int64
	shelf   map[string]shelved
	noted   map[tokenstore.Slot][]noted
	since   time.Time
	undo    []undo // oldest first
	watcher map[*memoryWatcher]struct{}
}

var _ tokenstore.Backend = (*Memory)(nil)

// memoryRow is a record, or the tombstone of one.
type memoryRow struct {
	rec *tokenstore.Record // never written to
	due int64              // Unix ms; 0: never; of a tombstone its end
	rip bool
}

type shelved struct {
	value []byte
	end   time.Time
}

// undo takes one write back.
type undo struct {
	at   time.Time
	back func()
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		rows:    make(map[tokenstore.Slot]memoryRow),
		leases:  make(map[tokenstore.Slot]tokenstore.Lease),
		shelf:   make(map[string]shelved),
		noted:   make(map[tokenstore.Slot][]noted),
		watcher: make(map[*memoryWatcher]struct{}),
	}
}

// FailOver makes the store one that has missed every write, lease and shelved value of the last while, as when a replica takes
// over that had not got them yet. From then on leases carry the present as their Since, and every watcher hears the zero Slot.
func (m *Memory) FailOver(lost time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = time.Now()
	for len(m.undo) > 0 && m.undo[len(m.undo)-1].at.After(m.since.Add(-lost)) {
		m.undo[len(m.undo)-1].back()
		m.undo = m.undo[:len(m.undo)-1]
	}
	m.publishLocked(tokenstore.Slot{})
}

// Peeked returns the record as it stands, not to be written to; nil: there is none.
func (m *Memory) Peeked(slot tokenstore.Slot) *tokenstore.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	if row := m.rows[slot]; !row.rip {
		return row.rec
	}
	return nil
}

// Get implements [tokenstore.Store].
func (m *Memory) Get(ctx context.Context, slot tokenstore.Slot) (*tokenstore.Record, error) {
	if err := usable(ctx, slot); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, there := m.rows[slot]
	switch {
	case !there, row.over():
		return nil, tokenstore.ErrNotFound
	case row.rip:
		return nil, tokenstore.ErrDeleted
	}
	return clone(row.rec), nil
}

// Save implements [tokenstore.Store].
func (m *Memory) Save(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) error {
	if err := usable(ctx, slot); err != nil {
		return err
	}
	if rec.Grant == "" {
		return errors.New("the record has no grant")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, there := m.rows[slot]
	switch {
	case !there, row.over():
		there = prev == tokenstore.Version{}
	case row.rip:
		there = prev == tokenstore.Version{} && rec.Grant != row.rec.Grant
	default:
		there = prev == row.rec.Version()
	}
	if !there {
		return tokenstore.ErrConflict
	}
	rec.Revision = max(prev.Revision, rec.Revision) + 1
	next := memoryRow{rec: clone(rec)}
	if !rec.Due.IsZero() {
		next.due = max(1, rec.Due.Add(time.Millisecond-1).UnixMilli())
	}
	m.putLocked(slot, next)
	return nil
}

// Delete implements [tokenstore.Store].
func (m *Memory) Delete(ctx context.Context, slot tokenstore.Slot, prev tokenstore.Version) error {
	if err := usable(ctx, slot); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, there := m.rows[slot]
	if !there || row.rip || prev != row.rec.Version() {
		return tokenstore.ErrConflict
	}
	m.putLocked(slot, memoryRow{rec: row.rec, due: time.Now().Add(tokenstore.TombstoneLife).UnixMilli(), rip: true})
	return nil
}

func (m *Memory) putLocked(slot tokenstore.Slot, row memoryRow) {
	old, there := m.rows[slot]
	m.journalLocked(func() { restore(m.rows, slot, old, there) })
	m.rows[slot] = row
	m.publishLocked(slot)
}

// List implements [tokenstore.Store].
func (m *Memory) List(ctx context.Context, integration string) iter.Seq2[tokenstore.Slot, tokenstore.Entry] {
	return func(yield func(tokenstore.Slot, tokenstore.Entry) bool) {
		if ctx.Err() != nil {
			yield(tokenstore.Slot{}, tokenstore.Entry{Err: tokenstore.ErrUnavailable})
			return
		}
		m.mu.Lock()
		rows := maps.Clone(m.rows)
		m.mu.Unlock()
		for slot, row := range rows {
			if row.rip || integration != "" && slot.Integration != integration {
				continue
			}
			if !yield(slot, tokenstore.Entry{Record: clone(row.rec)}) {
				return
			}
		}
	}
}

// Due implements [tokenstore.Store].
func (m *Memory) Due(ctx context.Context, now time.Time, limit int) ([]tokenstore.Slot, error) {
	if ctx.Err() != nil {
		return nil, tokenstore.ErrUnavailable
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	until := now.UnixMilli()
	var due []tokenstore.Slot
	for slot, row := range m.rows {
		if !row.rip && row.due != 0 && row.due <= until {
			due = append(due, slot)
		}
	}
	slices.SortFunc(due, func(x, y tokenstore.Slot) int { return cmp.Compare(m.rows[x].due, m.rows[y].due) })
	return due[:max(0, min(limit, len(due)))], nil
}

// Acquire implements [tokenstore.Locker].
func (m *Memory) Acquire(ctx context.Context, slot tokenstore.Slot, ttl time.Duration) (tokenstore.Lease, error) {
	if err := usable(ctx, slot); err != nil {
		return tokenstore.Lease{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if held, is := m.leases[slot]; is && now.Before(held.Expires) {
		return tokenstore.Lease{}, tokenstore.ErrHeld
	}
	m.fence = max(m.fence+1, now.UnixMilli()) // it rises even if a failover has lost the last one
	lease := tokenstore.Lease{Slot: slot, Owner: rand.Text(), Fence: m.fence, Expires: now.Add(ttl), Since: m.since}
	m.leaseLocked(slot, lease)
	return lease, nil
}

// Renew implements [tokenstore.Locker].
func (m *Memory) Renew(ctx context.Context, lease tokenstore.Lease, ttl time.Duration) (tokenstore.Lease, error) {
	if ctx.Err() != nil {
		return tokenstore.Lease{}, tokenstore.ErrUnavailable
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	held, is := m.leases[lease.Slot]
	if !is || held.Owner != lease.Owner || !now.Before(held.Expires) {
		return tokenstore.Lease{}, tokenstore.ErrHeld
	}
	held.Expires = now.Add(ttl)
	m.leaseLocked(lease.Slot, held)
	held.Since = m.since
	return held, nil
}

// Release implements [tokenstore.Locker].
func (m *Memory) Release(_ context.Context, lease tokenstore.Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[lease.Slot].Owner == lease.Owner {
		m.leaseLocked(lease.Slot, tokenstore.Lease{})
	}
	return nil
}

// Forget loses the lease of a Slot, if there is one.
func (m *Memory) Forget(slot tokenstore.Slot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leases, slot)
}

// leaseLocked makes lease the slot's; the zero Lease: none.
func (m *Memory) leaseLocked(slot tokenstore.Slot, lease tokenstore.Lease) {
	old, there := m.leases[slot]
	m.journalLocked(func() { restore(m.leases, slot, old, there) })
	restore(m.leases, slot, lease, lease.Owner != "")
}

// journalLocked remembers how to take back what is about to be written.
func (m *Memory) journalLocked(back func()) {
	if m.Journal == 0 {
		return
	}
	now := time.Now()
	m.undo = append(m.undo, undo{now, back})
	old := 0
	for m.undo[old].at.Before(now.Add(-m.Journal)) {
		old++
	}
	m.undo = slices.Delete(m.undo, 0, old)
}

// restore puts key back as it was.
func restore[K comparable, V any](in map[K]V, key K, value V, there bool) {
	if there {
		in[key] = value
	} else {
		delete(in, key)
	}
}

func (r memoryRow) over() bool { return r.rip && r.due <= time.Now().UnixMilli() }

func usable(ctx context.Context, slot tokenstore.Slot) error {
	if slot.Integration == "" || slot.Org == "" {
		return errors.New("the slot has no integration or no org")
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", tokenstore.ErrUnavailable, err)
	}
	return nil
}

// clone copies a record as sealing and opening it would: its times are in UTC and have no monotonic reading.
func clone(rec *tokenstore.Record) *tokenstore.Record {
	next := *rec
	next.Scopes, next.Extra = slices.Clone(rec.Scopes), maps.Clone(rec.Extra)
	Times(&next, time.Time.UTC)
	return &next
}

// Times applies change to every time of a record that is set.
func Times(rec *tokenstore.Record, change func(time.Time) time.Time) {
	each := []*time.Time{&rec.Token.Expiry, &rec.Connected, &rec.Refreshed, &rec.Used, &rec.Forced, &rec.Due}
	if rec.Failure != nil {
		f := *rec.Failure
		rec.Failure = &f
		each = append(each, &f.At, &f.RetryAt)
	}
	if rec.Intent != nil {
		i := *rec.Intent
		rec.Intent = &i
		each = append(each, &i.Began, &i.Deadline)
	}
	for _, t := range each {
		if !t.IsZero() {
			*t = change(*t)
		}
	}
}
