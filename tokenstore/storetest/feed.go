package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var feed = map[string]func(*testing.T, Opened){
	"every watcher hears of saves and deletes": func(t *testing.T, s Opened) {
		one, two := watch(t, s), watch(t, s)
		rec := saved(t, s, slotOf("acme"))
		one.hears(t, slotOf("acme"))
		two.hears(t, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		one.hears(t, slotOf("acme"))
	},

	"a conflict is not published": func(t *testing.T, s Opened) {
		w := watch(t, s)
		saved(t, s, slotOf("acme"))
		w.hears(t, slotOf("acme"))
		require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), Grant(), tokenstore.Version{}), tokenstore.ErrConflict)
		saved(t, s, slotOf("globex"))
		w.hears(t, slotOf("globex"))
		require.NotContains(t, w.heard(), slotOf("acme"))
	},

	"tricky names arrive whole": func(t *testing.T, s Opened) {
		w := watch(t, s)
		for _, slot := range trickySlots() {
			saved(t, s, slot)
			w.hears(t, slot)
		}
	},
}

// watcher collects what a Feed says.
type watcher struct {
	mu    sync.Mutex // guards slots
	slots []tokenstore.Slot
}

// watch starts a watcher that certainly listens, and ends it with the test.
func watch(t *testing.T, s tokenstore.Backend) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{}
	var wg sync.WaitGroup
	wg.Go(func() {
		s.Watch(ctx, func(slot tokenstore.Slot) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.slots = append(w.slots, slot)
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	probe := slotOf("probe")
	require.Eventually(t, func() bool {
		rec, err := s.Get(t.Context(), probe)
		if err == nil {
			err = s.Save(t.Context(), probe, rec, rec.Version())
		} else {
			err = s.Save(t.Context(), probe, Grant(), tokenstore.Version{})
		}
		return err == nil && slices.Contains(w.heard(), probe)
	}, 10*time.Second, 5*time.Millisecond)
	return w
}

func (w *watcher) heard() []tokenstore.Slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.slots)
}

// hears waits until the slot was heard of since the last call.
func (w *watcher) hears(t *testing.T, slot tokenstore.Slot) {
	t.Helper()
	require.Eventually(t, func() bool { return slices.Contains(w.heard(), slot) }, 5*time.Second, 2*time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.slots = slices.DeleteFunc(w.slots, func(s tokenstore.Slot) bool { return s == slot })
}
