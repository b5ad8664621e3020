package tokenstore

import (
	"context"
	"sync"
)

// watchers is a Feed for one process. Each watcher has a set of changed slots, so that publishing never waits and a slow
// watcher loses nothing but repetitions.
type watchers struct {
	mu  sync.Mutex // guards all
	all map[*watcher]struct{}
}

type watcher struct {
	pending map[Slot]struct{} // guarded by watchers.mu
	wake    chan struct{}     // holds one wake-up
}

func newWatchers() *watchers { return &watchers{all: make(map[*watcher]struct{})} }

func (w *watchers) publish(slot Slot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		one.pending[slot] = struct{}{}
		select {
		case one.wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

func (w *watchers) Watch(ctx context.Context, changed func(Slot)) {
	one := &watcher{pending: make(map[Slot]struct{}), wake: make(chan struct{}, 1)}
	w.mu.Lock()
	w.all[one] = struct{}{}
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.all, one)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-one.wake:
		}
		w.mu.Lock()
		slots := one.pending
		one.pending = make(map[Slot]struct{})
		w.mu.Unlock()
		for slot := range slots {
			changed(slot)
		}
	}
}
