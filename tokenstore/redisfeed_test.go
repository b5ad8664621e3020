package tokenstore_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestAWatcherIsToldThatItMayHaveMissedSomething(t *testing.T) {
	t.Parallel()
	for name, outage := range map[string]func(*storetest.RedisServer, func()){
		"the server was restarted": func(s *storetest.RedisServer, _ func()) { s.Kill(); s.Restart() },
		"the server hung":          func(s *storetest.RedisServer, noticed func()) { s.Pause(); noticed(); s.Resume() },
	} {
		t.Run(name, func(t *testing.T) {
			server := storetest.StartRedis(t, "--appendfsync", "always")
			s := storetest.OpenRedis(t, server.URL)
			w := watch(t, s)
			w.hears(t, s)
			require.NotContains(t, w.heard(), tokenstore.Slot{}, "the first subscription misses nothing")
			outage(server, func() {
				hung := time.Now()
				require.Eventually(t, func() bool { return time.Since(hung) > 3*time.Second }, 5*time.Second, 10*time.Millisecond)
			})
			require.Eventually(t, func() bool { return slices.Contains(w.heard(), tokenstore.Slot{}) }, 15*time.Second, 5*time.Millisecond)
			w.hears(t, s)
		})
	}
}

// A server whose disk fails answers every ping with an error.
func TestAWatchOutlivesADiskThatFails(t *testing.T) {
	server := storetest.StartFaultyRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	w := watch(t, s)
	w.hears(t, s)
	for _, fault := range storetest.RedisFaults() {
		if fault.Name == "without a disk" {
			fault.Break(server)
			broken := time.Now()
			require.Error(t, direct(t, server).Ping(t.Context()).Err())
			require.Eventually(t, func() bool { return time.Since(broken) > 2500*time.Millisecond }, 5*time.Second, 10*time.Millisecond)
			fault.Mend(server)
		}
	}
	w.hears(t, s)
	require.NotContains(t, w.heard(), tokenstore.Slot{})
}

// A watcher that could not subscribe at once has missed what was published until then.
func TestAWatcherThatComesLateIsToldSo(t *testing.T) {
	server := storetest.StartRedis(t, "--appendfsync", "always")
	s := storetest.OpenRedis(t, server.URL)
	server.Kill()
	w := watch(t, s)
	require.Eventually(t, func() bool { return s.Ping(t.Context()) != nil }, 5*time.Second, time.Millisecond)
	server.Restart()
	require.Eventually(t, func() bool { return slices.Contains(w.heard(), tokenstore.Slot{}) }, 15*time.Second, 5*time.Millisecond)
}

func TestAWatchOfAHungServerEndsWithItsContext(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Watch(ctx, func(tokenstore.Slot) {}) }()
	server.Pause()
	ended := time.Now()
	cancel()
	<-done
	require.Less(t, time.Since(ended), time.Second)
	server.Resume()
	goleak.VerifyNone(t, before)
}

// watcher collects what a Feed says.
type watcher struct {
	mu    sync.Mutex // guards slots
	slots []tokenstore.Slot
}

// watch follows the Feed until the test ends.
func watch(t *testing.T, s *tokenstore.Redis) *watcher {
	t.Helper()
	w := &watcher{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		s.Watch(ctx, func(slot tokenstore.Slot) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.slots = append(w.slots, slot)
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func (w *watcher) heard() []tokenstore.Slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.slots)
}

// hears saves until the watcher hears of one of the saves.
func (w *watcher) hears(t *testing.T, s *tokenstore.Redis) {
	t.Helper()
	slot := tokenstore.Slot{Integration: "heard", Org: tokenstore.Org(time.Now().Format("150405.000000"))}
	rec, prev := storetest.Grant(), tokenstore.Version{}
	require.Eventually(t, func() bool {
		if s.Save(t.Context(), slot, rec, prev) == nil {
			prev = rec.Version()
		}
		return slices.Contains(w.heard(), slot)
	}, 15*time.Second, 10*time.Millisecond)
}
