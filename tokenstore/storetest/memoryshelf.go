package storetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Put implements [tokenstore.Shelf].
func (m *Memory) Put(ctx context.Context, id string, value []byte, life time.Duration) error {
	switch {
	case life <= 0:
		return errors.New("a shelved value needs a life")
	case ctx.Err() != nil:
		return tokenstore.ErrUnavailable
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for old, v := range m.shelf {
		if !now.Before(v.end) {
			delete(m.shelf, old)
		}
	}
	old, there := m.shelf[id]
	m.journalLocked(func() { restore(m.shelf, id, old, there) })
	m.shelf[id] = shelved{append([]byte{}, value...), now.Add(life)}
	return nil
}

// Take implements [tokenstore.Shelf].
func (m *Memory) Take(ctx context.Context, id string) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, tokenstore.ErrUnavailable
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, there := m.shelf[id]
	if !there || !time.Now().Before(v.end) {
		return nil, tokenstore.ErrNotFound
	}
	m.journalLocked(func() { restore(m.shelf, id, v, true) })
	delete(m.shelf, id)
	return v.value, nil
}

// Peek implements [tokenstore.Shelf].
func (m *Memory) Peek(ctx context.Context, ids ...string) ([][]byte, error) {
	if ctx.Err() != nil {
		return nil, tokenstore.ErrUnavailable
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	values := make([][]byte, len(ids))
	for i, id := range ids {
		if v, there := m.shelf[id]; there && time.Now().Before(v.end) {
			values[i] = slices.Clone(v.value)
		}
	}
	return values, nil
}

// memoryWatcher is one call of Watch.
type memoryWatcher struct {
	pending []tokenstore.Slot // guarded by Memory.mu
	wake    chan struct{}     // holds one wake-up
}

// Watch implements [tokenstore.Feed].
func (m *Memory) Watch(ctx context.Context, changed func(tokenstore.Slot)) {
	w := &memoryWatcher{wake: make(chan struct{}, 1)}
	m.mu.Lock()
	m.watcher[w] = struct{}{}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watcher, w)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		m.mu.Lock()
		slots := w.pending
		w.pending = nil
		m.mu.Unlock()
		for _, slot := range slots {
			changed(slot)
		}
	}
}

func (m *Memory) publishLocked(slot tokenstore.Slot) {
	for w := range m.watcher {
		w.pending = append(w.pending, slot)
		select {
		case w.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// Shelved returns the bytes of every value on the shelf and of every entry of the Journal, one after another.
func (m *Memory) Shelved() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []byte
	for _, v := range m.shelf {
		all = append(all, v.value...)
	}
	for _, entries := range m.noted {
		for _, n := range entries {
			all = append(all, n.entry...)
		}
	}
	return all
}
