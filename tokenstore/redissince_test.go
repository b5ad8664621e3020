package tokenstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// Redis acknowledges before it is certain to keep: what was written shortly before a restart may be gone.
func TestALeaseTellsSinceWhenTheServerHasRun(t *testing.T) {
	server := storetest.StartRedis(t, "--appendfsync", "always")
	s := storetest.OpenRedis(t, server.URL)
	require.Zero(t, since(t, s))

	server.Kill()
	before := time.Now()
	server.Restart()
	reached := comesBack(t, s)
	first := since(t, s)
	require.WithinRange(t, first, before, time.Now())

	require.Eventually(t, func() bool { return time.Since(reached) > 300*time.Millisecond }, 5*time.Second, 5*time.Millisecond)
	require.WithinDuration(t, first, since(t, s), 200*time.Millisecond, "it does not move on")
	require.WithinDuration(t, first, since(t, storetest.OpenRedis(t, server.URL)), 200*time.Millisecond,
		"another replica hears the same")
}

// What is noted of the server may be lost in the same failover as all else.
func TestALeaseOfAServerThatNobodyKnowsIsRecent(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	keys := direct(t, server).Keys(t.Context(), "bifrost:*:run").Val()
	require.Len(t, keys, 64)
	require.NoError(t, direct(t, server).Del(t.Context(), keys...).Err())
	require.WithinDuration(t, time.Now(), since(t, s), 5*time.Second)
}

// since takes a lease and gives it back.
func since(t *testing.T, s *tokenstore.Redis) time.Time {
	t.Helper()
	lease, err := s.Acquire(t.Context(), acme, time.Minute)
	require.NoError(t, err)
	require.NoError(t, s.Release(t.Context(), lease))
	return lease.Since
}

// comesBack waits until a store answers again.
func comesBack(t *testing.T, s *tokenstore.Redis) time.Time {
	t.Helper()
	require.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, 15*time.Second, 5*time.Millisecond)
	return time.Now()
}
