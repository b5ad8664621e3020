package tokenstore_test

import (
	"bytes"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const unreplicated = "bifrost_store_unreplicated_writes_total"

func TestAWriteWaitsForReplicas(t *testing.T) {
	primary := storetest.StartRedis(t)
	replica := storetest.StartReplica(t, primary)
	behind := direct(t, primary)
	require.Eventually(t, func() bool { return behind.Wait(t.Context(), 1, time.Second).Val() == 1 }, 15*time.Second, time.Millisecond)
	reg, log := prometheus.NewPedanticRegistry(), &bytes.Buffer{}
	s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{
		URL: primary.URL, Metrics: reg, Log: slog.New(slog.NewTextHandler(log, nil)), WaitReplicas: 1,
	})
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	require.EqualValues(t, 1, direct(t, replica).Exists(t.Context(), tokenstore.RedisRow(acme)).Val(), "the replica has it at once")
	require.ErrorIs(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}), tokenstore.ErrConflict)
	require.NoError(t, behind.ScriptFlush(t.Context()).Err())
	require.NoError(t, s.Save(t.Context(), acme, rec, rec.Version()), "a script that the server forgot is sent again")
	require.Zero(t, value(t, reg, unreplicated))

	replica.Pause()
	for range 3 {
		start := time.Now()
		require.NoError(t, s.Save(t.Context(), acme, rec, rec.Version()), "the write stands")
		require.WithinRange(t, time.Now(), start.Add(90*time.Millisecond), start.Add(400*time.Millisecond))
	}
	require.InDelta(t, 3, value(t, reg, unreplicated), 0)
	require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "%s", log)
	require.ErrorIs(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}), tokenstore.ErrConflict, "nothing was written")
	require.InDelta(t, 3, value(t, reg, unreplicated), 0)
	replica.Resume()
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, rec, got)
	require.Eventually(t, func() bool {
		before := value(t, reg, unreplicated)
		return s.Save(t.Context(), acme, rec, rec.Version()) == nil && value(t, reg, unreplicated) == before
	}, 15*time.Second, time.Millisecond)
}

// A repetition writes nothing, and WAIT on its new connection would be content at once.
func TestAWriteWhoseReplyWasLostWaitsForReplicasToo(t *testing.T) {
	primary := storetest.StartRedis(t)
	replica := storetest.StartReplica(t, primary)
	require.Eventually(t, func() bool { return direct(t, primary).Wait(t.Context(), 1, time.Second).Val() == 1 }, 15*time.Second, time.Millisecond)
	proxy := startLossyProxy(t, primary.Addr)
	reg := prometheus.NewPedanticRegistry()
	s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: "redis://" + proxy.addr, Metrics: reg, WaitReplicas: 1})
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	before := value(t, reg, unreplicated) // a busy machine may have been late already
	replica.Pause()
	proxy.loseReply.Store(true)
	require.NoError(t, s.Save(t.Context(), acme, rec, rec.Version()))
	require.False(t, proxy.loseReply.Load(), "the reply was lost")
	require.InDelta(t, before+1, value(t, reg, unreplicated), 0)
}

func clusterCountsUnreplicatedWrites(t *testing.T, cluster *storetest.RedisCluster) {
	reg := prometheus.NewPedanticRegistry()
	s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: cluster.URL, Metrics: reg, WaitReplicas: 1})
	for i, slot := range spread(20) {
		rec := storetest.Grant()
		require.NoError(t, s.Save(t.Context(), slot, rec, tokenstore.Version{}))
		require.InDelta(t, i+1, value(t, reg, unreplicated), 0, "no node has a replica")
		got, err := s.Get(t.Context(), slot)
		require.NoError(t, err)
		require.Equal(t, rec, got)
	}
}

// spread returns n slots, of many shards.
func spread(n int) []tokenstore.Slot {
	slots := make([]tokenstore.Slot, n)
	for i := range slots {
		slots[i] = tokenstore.Slot{Integration: "spread", Org: tokenstore.Org(rand.Text())}
	}
	return slots
}
