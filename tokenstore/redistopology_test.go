package tokenstore_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	servers := storetest.StartSentinel(t)
	s := storetest.OpenRedis(t, servers.URL)
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	lease, err := s.Acquire(t.Context(), acme, time.Millisecond)
	require.NoError(t, err)
	w := watch(t, s)
	w.hears(t, s)
	require.EqualValues(t, 1, direct(t, servers.Primary).Wait(t.Context(), 1, 10*time.Second).Val(), "the replica has it all")

	servers.Primary.Kill()
	killed := time.Now()
	require.Eventually(t, func() bool { return s.Save(t.Context(), acme, rec, rec.Version()) == nil }, 30*time.Second, 50*time.Millisecond)
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, rec, got)
	again, err := s.Acquire(t.Context(), acme, time.Minute)
	require.NoError(t, err)
	require.Greater(t, again.Fence, lease.Fence)
	require.Zero(t, lease.Since)
	require.WithinRange(t, again.Since, killed, time.Now(), "the replica may not have had everything")
	require.Eventually(t, func() bool { return slices.Contains(w.heard(), tokenstore.Slot{}) }, 30*time.Second, 5*time.Millisecond)
	w.hears(t, s)
}

// A hash slot that moves while the store is in use answers MOVED and ASK.
func clusterServesAMovingShard(t *testing.T, cluster *storetest.RedisCluster) {
	for _, server := range cluster.Nodes {
		require.NoError(t, restrict(t.Context(), direct(t, server), "+cluster|slots", "+command", "+asking"))
	}
	s := storetest.OpenRedis(t, strings.Replace(cluster.URL, "redis://", "redis://bifrost:CANARY@", 1))
	moving := tokenstore.Slot{Integration: "moving", Org: "acme"}
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), moving, rec, tokenstore.Version{}))

	finish := cluster.BeginMove(t, tokenstore.RedisRow(moving))
	got, err := s.Get(t.Context(), moving) // ASK
	require.NoError(t, err)
	require.Equal(t, rec, got)
	require.NoError(t, s.Save(t.Context(), moving, rec, rec.Version()))
	finish()
	require.NoError(t, s.Save(t.Context(), moving, rec, rec.Version())) // MOVED
	got, err = s.Get(t.Context(), moving)
	require.NoError(t, err)
	require.Equal(t, rec, got)
	require.NoError(t, s.Ping(t.Context()))
}

// A lease is a new key, which Redis makes in a slot only while it does not move: until then the answer is TRYAGAIN.
func clusterGivesALeaseOnceAShardHasMoved(t *testing.T, cluster *storetest.RedisCluster) {
	s := storetest.OpenRedis(t, cluster.URL)
	moving := tokenstore.Slot{Integration: "moving", Org: "leased"}
	require.NoError(t, s.Save(t.Context(), moving, storetest.Grant(), tokenstore.Version{}))

	finish := cluster.BeginMove(t, tokenstore.RedisRow(moving))
	_, err := s.Acquire(t.Context(), moving, time.Minute)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	given := make(chan error)
	started := time.Now()
	go func() {
		_, err := s.Acquire(context.Background(), moving, time.Minute)
		given <- err
	}()
	<-time.After(150 * time.Millisecond)
	finish()
	require.NoError(t, <-given)
	require.Less(t, time.Since(started), 2*time.Second)
}

func clusterLosesANode(t *testing.T, cluster *storetest.RedisCluster) {
	s := storetest.OpenRedis(t, cluster.URL)
	stored := map[tokenstore.Slot]*tokenstore.Record{}
	for i := range 30 {
		slot := tokenstore.Slot{Integration: "a", Org: tokenstore.Org(fmt.Sprint(i))}
		stored[slot] = storetest.Grant()
		require.NoError(t, s.Save(t.Context(), slot, stored[slot], tokenstore.Version{}))
	}
	cluster.Nodes[1].Stop()
	for slot, rec := range stored {
		start := time.Now()
		if got, err := s.Get(t.Context(), slot); err == nil {
			require.Equal(t, rec, got)
		} else {
			require.ErrorIs(t, err, tokenstore.ErrUnavailable)
			require.NotErrorIs(t, err, tokenstore.ErrNotFound)
		}
		require.Less(t, time.Since(start), time.Second)
	}
	require.ErrorIs(t, s.Ping(t.Context()), tokenstore.ErrUnavailable)
	cluster.Nodes[1].Restart()
	require.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, 30*time.Second, 20*time.Millisecond)
	for slot, rec := range stored {
		got, err := s.Get(t.Context(), slot)
		require.NoError(t, err)
		require.Equal(t, rec, got)
	}
}
