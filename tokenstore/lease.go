package tokenstore

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

// leases is a Locker for one process.
type leases struct {
	mu    sync.Mutex // guards all below
	fence int64      // of the last lease given out
	held  map[Slot]Lease
}

// newLeases counts fences up from one that is higher than any of an earlier process.
func newLeases(fence int64) *leases {
	return &leases{fence: fence, held: make(map[Slot]Lease)}
}

func (l *leases) Acquire(ctx context.Context, slot Slot, ttl time.Duration) (Lease, error) {
	if err := given(ctx); err != nil {
		return Lease{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if held, is := l.held[slot]; is && now.Before(held.Expires) {
		return Lease{}, ErrHeld
	}
	l.fence++
	lease := Lease{Slot: slot, Owner: rand.Text(), Fence: l.fence, Expires: now.Add(ttl)}
	l.held[slot] = lease
	return lease, nil
}

func (l *leases) Renew(ctx context.Context, lease Lease, ttl time.Duration) (Lease, error) {
	if err := given(ctx); err != nil {
		return Lease{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	held, is := l.held[lease.Slot]
	if !is || held.Owner != lease.Owner || !now.Before(held.Expires) {
		return Lease{}, ErrHeld
	}
	held.Expires = now.Add(ttl)
	l.held[lease.Slot] = held
	return held, nil
}

// Release works even if ctx has ended: there is nothing to wait for.
func (l *leases) Release(_ context.Context, lease Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[lease.Slot].Owner == lease.Owner {
		delete(l.held, lease.Slot)
	}
	return nil
}
