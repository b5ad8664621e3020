package authflow_test

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// simStore is the common store as one replica reaches it: late, not at all, or without hearing that it did, and by a clock of
// its own.
type simStore struct{ r *simReplica }

var _ tokenstore.Backend = simStore{}

// simDo carries out one operation. act is what it does to the store; it may happen although simDo reports ErrUnavailable.
func simDo[T any](ctx context.Context, s simStore, op string, act func(context.Context) (T, error)) (value T, err error) {
	r := s.r
	if !r.step(op) {
		return value, errSimDead
	}
	r.stall()
	if err := s.reach(ctx); err != nil {
		return value, err
	}
	if !s.travel(ctx) && op != "release" {
		r.stall()
		if r.chance("late", r.plan.noise) { // what was sent arrives although its sender has given up waiting
			after := r.between("late", 0, 3*time.Second)
			r.background(func() {
				pass(after)
				_, _ = act(context.WithoutCancel(ctx)) // nobody hears of it
			})
		}
		return value, tokenstore.ErrUnavailable
	}
	if r.chance("refused", r.plan.noise/2) {
		return value, tokenstore.ErrUnavailable
	}
	got, err := act(ctx)
	if !r.step(op) {
		return value, errSimDead
	}
	r.stall()
	if r.chance("lost", r.plan.noise/2) {
		return value, tokenstore.ErrUnavailable
	}
	return got, err
}

// reach fails while the replica cannot reach the store.
func (s simStore) reach(ctx context.Context) error {
	r := s.r
	w, away := r.troubled(&r.outages)
	if !away {
		w, away = r.troubled(&r.cuts[r.index])
	}
	switch {
	case !away:
		return nil
	case w.hang:
		simSleep(ctx, time.Second)
		r.stall()
	}
	return tokenstore.ErrUnavailable
}

// travel is the way to the store; it tells whether ctx lasted for it.
func (s simStore) travel(ctx context.Context) bool {
	d := 300 * time.Microsecond
	if s.r.chance("slow", s.r.plan.noise/2) {
		d = s.r.between("slow", 50*time.Millisecond, 1500*time.Millisecond)
	}
	return simSleep(ctx, d)
}

// simSleep waits, and tells whether ctx lasted.
func simSleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// seen turns a time of the store's into what the replica takes it for; meant is the way back.
func (s simStore) seen(t time.Time) time.Time  { return t.Add(-s.r.ahead()) }
func (s simStore) meant(t time.Time) time.Time { return t.Add(s.r.ahead()) }

func (s simStore) Get(ctx context.Context, slot tokenstore.Slot) (*tokenstore.Record, error) {
	rec, err := simDo(ctx, s, "get", func(ctx context.Context) (*tokenstore.Record, error) {
		rec, err := s.r.memory.Get(ctx, slot)
		s.r.learns(s.r, rec)
		return rec, err
	})
	if err != nil {
		return nil, hidden(err)
	}
	storetest.Times(rec, s.seen)
	return rec, nil
}

func (s simStore) Save(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) error {
	sent := *rec
	storetest.Times(&sent, s.meant)
	revision, err := simDo(ctx, s, "save", func(ctx context.Context) (int64, error) {
		next := sent
		moment, err := s.r.save(ctx, s.r, slot, &next, prev)
		s.r.strikes(moment)
		return next.Revision, err
	})
	if errors.Is(err, errSimDead) {
		return nil // or it would be tried for ever
	}
	if err == nil {
		rec.Revision = revision
	}
	return err
}

func (s simStore) Delete(ctx context.Context, slot tokenstore.Slot, prev tokenstore.Version) error {
	_, err := simDo(ctx, s, "save", func(ctx context.Context) (none struct{}, err error) {
		return none, s.r.remove(ctx, s.r, slot, prev)
	})
	return hidden(err)
}

func (s simStore) List(ctx context.Context, integration string) iter.Seq2[tokenstore.Slot, tokenstore.Entry] {
	return func(yield func(tokenstore.Slot, tokenstore.Entry) bool) {
		all, err := simDo(ctx, s, "list", func(ctx context.Context) (iter.Seq2[tokenstore.Slot, tokenstore.Entry], error) {
			return s.r.memory.List(ctx, integration), nil
		})
		if err != nil {
			yield(tokenstore.Slot{}, tokenstore.Entry{Err: hidden(err)})
			return
		}
		for slot, entry := range all {
			if entry.Record != nil {
				storetest.Times(entry.Record, s.seen)
			}
			if !yield(slot, entry) {
				return
			}
		}
	}
}

func (s simStore) Due(ctx context.Context, now time.Time, limit int) ([]tokenstore.Slot, error) {
	due, err := simDo(ctx, s, "due", func(ctx context.Context) ([]tokenstore.Slot, error) {
		return s.r.memory.Due(ctx, s.meant(now), limit)
	})
	return due, hidden(err)
}

func (s simStore) Acquire(ctx context.Context, slot tokenstore.Slot, ttl time.Duration) (tokenstore.Lease, error) {
	began := time.Now()
	s.r.asks(slot)
	lease, err := simDo(ctx, s, "acquire", func(ctx context.Context) (tokenstore.Lease, error) {
		lease, err := s.r.memory.Acquire(ctx, slot, ttl)
		if err == nil {
			s.r.strikes(whenLeased)
		}
		return lease, err
	})
	if err == nil {
		s.r.holds(slot, true)
	}
	return s.lease(lease, began.Add(ttl)), hidden(err)
}

func (s simStore) Renew(ctx context.Context, lease tokenstore.Lease, ttl time.Duration) (tokenstore.Lease, error) {
	began := time.Now()
	renewed, err := simDo(ctx, s, "renew", func(ctx context.Context) (tokenstore.Lease, error) {
		return s.r.memory.Renew(ctx, lease, ttl)
	})
	return s.lease(renewed, began.Add(ttl)), hidden(err)
}

// lease is a lease as the replica knows it: until when on the safe side, and since when by its own clock.
func (s simStore) lease(lease tokenstore.Lease, expires time.Time) tokenstore.Lease {
	lease.Expires = expires
	if !lease.Since.IsZero() {
		lease.Since = s.seen(lease.Since)
	}
	return lease
}

func (s simStore) Release(ctx context.Context, lease tokenstore.Lease) error {
	s.r.holds(lease.Slot, false)
	_, err := simDo(ctx, s, "release", func(ctx context.Context) (none struct{}, err error) {
		return none, s.r.memory.Release(ctx, lease)
	})
	return hidden(err)
}

func (s simStore) Put(ctx context.Context, id string, value []byte, life time.Duration) error {
	_, err := simDo(ctx, s, "put", func(ctx context.Context) (none struct{}, err error) {
		return none, s.r.memory.Put(ctx, id, value, life)
	})
	return hidden(err)
}

func (s simStore) Take(ctx context.Context, id string) ([]byte, error) {
	value, err := simDo(ctx, s, "take", func(ctx context.Context) ([]byte, error) { return s.r.memory.Take(ctx, id) })
	return value, hidden(err)
}

func (s simStore) Peek(ctx context.Context, ids ...string) ([][]byte, error) {
	values, err := simDo(ctx, s, "peek", func(ctx context.Context) ([][]byte, error) { return s.r.memory.Peek(ctx, ids...) })
	return values, hidden(err)
}

func (s simStore) Note(ctx context.Context, slot tokenstore.Slot, entry []byte) error {
	_, err := simDo(ctx, s, "note", func(ctx context.Context) (none struct{}, err error) {
		return none, s.r.memory.Note(ctx, slot, entry)
	})
	return hidden(err)
}

func (s simStore) Notes(ctx context.Context, slot tokenstore.Slot) ([][]byte, error) {
	entries, err := simDo(ctx, s, "notes", func(ctx context.Context) ([][]byte, error) { return s.r.memory.Notes(ctx, slot) })
	return entries, hidden(err)
}

// hidden makes of a death what those who are left behind can handle.
func hidden(err error) error {
	if errors.Is(err, errSimDead) {
		return tokenstore.ErrUnavailable
	}
	return err
}

// Watch passes on what the store says, late or not at all; that anything may have changed is heard in the end.
func (s simStore) Watch(ctx context.Context, changed func(tokenstore.Slot)) {
	r := s.r
	r.memory.Watch(ctx, func(slot tokenstore.Slot) {
		anything := slot == tokenstore.Slot{}
		if !anything && r.chance("unheard", 2*r.plan.noise) {
			return
		}
		late := time.Millisecond
		if anything || r.chance("heard late", 2*r.plan.noise) {
			late = r.between("heard late", 0, 3*time.Second)
		}
		r.background(func() {
			for pass(late); anything && s.reach(ctx) != nil; pass(time.Second) {
			}
			r.stall()
			if ctx.Err() == nil {
				changed(slot)
			}
		})
	})
}
