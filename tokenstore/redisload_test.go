package tokenstore_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// load uses a store on many slots at a time and knows what each must hold.
type load struct {
	t    *testing.T
	s    *tokenstore.Redis
	stop context.CancelFunc
	all  sync.WaitGroup

	done, failed atomic.Int64 // operations
	longest      atomic.Int64 // of an operation

	mu    sync.Mutex // guards holds
	holds map[tokenstore.Slot]*tokenstore.Record
}

// startLoad begins; end ends it.
func startLoad(t *testing.T, s *tokenstore.Redis, slots []tokenstore.Slot) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, s: s, stop: cancel, holds: map[tokenstore.Slot]*tokenstore.Record{}}
	for _, slot := range slots {
		rec := storetest.Grant()
		require.NoError(t, s.Save(t.Context(), slot, rec, tokenstore.Version{}))
		l.all.Go(func() {
			for ctx.Err() == nil {
				rec = l.round(slot, rec)
				select {
				case <-ctx.Done():
				case <-time.After(time.Millisecond):
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.holds[slot] = rec
		})
	}
	t.Cleanup(l.end)
	return l
}

func (l *load) end() { l.stop(); l.all.Wait() }

// round takes a lease, stores the next generation and reads it again. It returns what is stored now.
func (l *load) round(slot tokenstore.Slot, rec *tokenstore.Record) *tokenstore.Record {
	ctx := context.Background()
	l.timed("acquire", func() error {
		lease, err := l.s.Acquire(ctx, slot, 200*time.Millisecond)
		if err == nil {
			err = l.s.Release(ctx, lease)
		}
		if errors.Is(err, tokenstore.ErrHeld) { // one whose reply or whose release was lost
			return nil
		}
		return err
	})
	next := *rec
	next.Generation++
	prev := rec.Version()
	stored := l.timed("save", func() error { return l.s.Save(ctx, slot, &next, prev) })
	if stored {
		return l.read(slot, &next)
	}
	return l.read(slot, rec, &next)
}

// read reads until there is an answer, which must be one of possible.
func (l *load) read(slot tokenstore.Slot, possible ...*tokenstore.Record) *tokenstore.Record {
	for patience := time.Now().Add(30 * time.Second); ; {
		if time.Now().After(patience) {
			l.t.Errorf("%s: the store does not come back", slot)
			return possible[0]
		}
		var got *tokenstore.Record
		if !l.timed("get", func() (err error) { got, err = l.s.Get(context.Background(), slot); return err }) {
			<-time.After(10 * time.Millisecond) // as a caller would
			continue
		}
		for _, rec := range possible {
			if got.Generation == rec.Generation && got.Write == rec.Write && got.Grant == rec.Grant {
				return got
			}
		}
		l.t.Errorf("%s: generation %d is stored, expected %d", slot, got.Generation, possible[0].Generation)
		return got
	}
}

// timed runs an operation, which may fail as unavailable alone.
func (l *load) timed(op string, do func() error) bool {
	start := time.Now()
	err := do()
	took := time.Since(start)
	for longest := l.longest.Load(); int64(took) > longest && !l.longest.CompareAndSwap(longest, int64(took)); longest = l.longest.Load() {
	}
	switch {
	case err == nil:
		l.done.Add(1)
		return true
	case errors.Is(err, tokenstore.ErrUnavailable):
		l.failed.Add(1)
	default:
		l.t.Errorf("%s: %v", op, err)
	}
	return false
}

// goesOn waits until n more operations succeeded.
func (l *load) goesOn(n int64) {
	l.t.Helper()
	before := l.done.Load()
	require.Eventually(l.t, func() bool { return l.done.Load() >= before+n }, 30*time.Second, 5*time.Millisecond)
}

// verify ends the load; everything stored must be there.
func (l *load) verify(t *testing.T) {
	t.Helper()
	l.end()
	t.Logf("%d operations, %d unavailable, the longest took %v", l.done.Load(), l.failed.Load(), time.Duration(l.longest.Load()))
	require.Less(t, time.Duration(l.longest.Load()), 2*time.Second) // two operations of 450 ms, and room for a busy machine
	found := map[tokenstore.Slot]bool{}
	for slot, entry := range l.s.List(t.Context(), "spread") {
		require.NoError(t, entry.Err)
		found[slot] = true
	}
	for slot, rec := range l.holds {
		require.True(t, found[slot])
		got, err := l.s.Get(t.Context(), slot)
		require.NoError(t, err)
		require.Equal(t, rec, got)
	}
}

func TestAFailoverUnderLoadLosesNothingThatAReplicaHad(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*storetest.RedisServer){
		"killed": (*storetest.RedisServer).Kill,
		"hung":   (*storetest.RedisServer).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := storetest.StartSentinel(t)
			reg := prometheus.NewPedanticRegistry()
			s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: servers.URL, WaitReplicas: 1, Metrics: reg})
			l := startLoad(t, s, spread(16))
			l.goesOn(500)
			require.Zero(t, value(t, reg, unreplicated))
			leave(servers.Primary)
			require.Eventually(t, func() bool { return servers.Master(t) == servers.Replica.Addr }, 30*time.Second, 10*time.Millisecond)
			l.goesOn(500)
			l.verify(t)
			require.Positive(t, value(t, reg, unreplicated), "the new primary has no replica")
		})
	}
}

// clusterServesLoadWhileShardsMove moves some of our shards to and fro, key by key.
func clusterServesLoadWhileShardsMove(t *testing.T, cluster *storetest.RedisCluster) {
	s := storetest.OpenRedis(t, cluster.URL)
	slots := spread(48)
	l := startLoad(t, s, slots)
	l.goesOn(200)
	for range 2 {
		for _, slot := range slots[:8] {
			cluster.MoveShard(t, tokenstore.RedisRow(slot))
		}
	}
	l.goesOn(500)
	l.verify(t)
	require.NoError(t, s.Ping(t.Context()))
}
