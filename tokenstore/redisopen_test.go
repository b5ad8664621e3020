package tokenstore_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestRedisURLsAreRefusedWithoutShowingThem(t *testing.T) {
	for name, url := range map[string]string{
		"no URL":               "",
		"no scheme":            "CANARY-host:6379",
		"another scheme":       "http://user:CANARY@127.0.0.1:1",
		"a socket":             "unix:///CANARY.sock",
		"unparsable":           "redis://user:CANARY@127.0.0.1:port",
		"a bad escape":         "redis://user:CANARY%zz@127.0.0.1:1",
		"a bad query":          "redis://user:CANARY@127.0.0.1:1?a;b=CANARY",
		"a fragment":           "redis://user:CANARY@127.0.0.1:1#CANARY",
		"no verification":      "rediss://user:CANARY@127.0.0.1:1?skip_verify=true",
		"the same, in Cluster": "rediss://user:CANARY@127.0.0.1:1?cluster=true&skip_verify=true",
		"an unknown option":    "redis://user:CANARY@127.0.0.1:1?read_timeout=1h",
		"replica reads":        "redis://user:CANARY@127.0.0.1:1?master_name=m&replica_only=true",
		"a bad database":       "redis://user:CANARY@127.0.0.1:1/CANARY",
		"a bad option":         "redis://user:CANARY@127.0.0.1:1?pool_size=CANARY",
		"a cluster's database": "redis://user:CANARY@127.0.0.1:1/2?cluster=true",
		"a bad cluster":        "redis://user:CANARY@127.0.0.1:1?cluster=CANARY",
		"both":                 "redis://user:CANARY@127.0.0.1:1?cluster=true&master_name=CANARY",
		"an empty master":      "redis://user:CANARY@127.0.0.1:1?master_name=",
		"addresses alone":      "redis://user:CANARY@127.0.0.1:1?addr=CANARY:1",
		"a bad address":        "redis://user:CANARY@127.0.0.1:1?cluster=true&addr=CANARY",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: url, Keys: storetest.Keys(t)})
			require.Error(t, err)
			require.NotErrorIs(t, err, tokenstore.ErrUnavailable, "it is refused before anything is dialled")
			require.NotContains(t, err.Error(), "CANARY")
		})
	}
}

func TestNewRedisOfNobodyIsUnavailableWithoutShowingThePassword(t *testing.T) {
	server := storetest.StartRedis(t)
	for name, url := range map[string]string{
		"nobody there":     "redis://user:CANARY@127.0.0.1:1",
		"no cluster there": "redis://user:CANARY@127.0.0.1:1?cluster=true",
		"no sentinel":      "redis://user:CANARY@127.0.0.1:1?master_name=m&password=CANARY",
		"not a cluster":    server.URL + "?cluster=true",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: url, Keys: storetest.Keys(t)})
			require.ErrorIs(t, err, tokenstore.ErrUnavailable)
			require.Less(t, time.Since(start), 2*time.Second)
			require.NotContains(t, err.Error(), "CANARY")
		})
	}
}

func TestReplicasThatStartTogetherAgreeOnTheStore(t *testing.T) {
	server := storetest.StartRedis(t)
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() { ids[i] = storetest.OpenRedis(t, server.URL).ID() })
	}
	wg.Wait()
	for _, id := range ids {
		require.Equal(t, ids[0], id)
		require.NotEmpty(t, id)
	}
}

func TestRedisRefusesAWrongKeyAndChangesNothing(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	wrong, err := tokenstore.NewKeyring(tokenstore.Key{ID: "test", Bytes: []byte(strings.Repeat("x", 32))})
	require.NoError(t, err)
	_, err = tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: server.URL, Keys: wrong})
	require.ErrorIs(t, err, tokenstore.ErrWrongKey)
	require.NotErrorIs(t, err, tokenstore.ErrUnavailable)
	require.NoError(t, s.Ping(t.Context()))
	require.Equal(t, s.ID(), storetest.OpenRedis(t, server.URL).ID())
}

func TestAnInterruptedStartIsCompletedByTheNext(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	require.EqualValues(t, 1, behind.HDel(t.Context(), "bifrost:{0}:store", "complete").Val())
	require.EqualValues(t, 1, behind.Del(t.Context(), "bifrost:{63}:id").Val())
	require.Error(t, s.Ping(t.Context()))
	require.Equal(t, s.ID(), storetest.OpenRedis(t, server.URL).ID())
	require.NoError(t, s.Ping(t.Context()))
}

func TestAStoreThatLostAPartIsRefused(t *testing.T) {
	for _, lost := range []string{"bifrost:{17}:id", "bifrost:{0}:store"} {
		t.Run(lost, func(t *testing.T) {
			server := storetest.StartRedis(t)
			storetest.OpenRedis(t, server.URL)
			require.EqualValues(t, 1, direct(t, server).Del(t.Context(), lost).Val())
			for range 2 {
				_, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: server.URL, Keys: storetest.Keys(t)})
				require.ErrorIs(t, err, tokenstore.ErrUnavailable)
				require.ErrorContains(t, err, "a part of a store")
			}
		})
	}
}

func TestOnlyWhatMayVanishExpires(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	ttl := func() time.Duration { return behind.PTTL(t.Context(), tokenstore.RedisRow(acme)).Val() }
	require.Negative(t, ttl())
	require.NoError(t, s.Delete(t.Context(), acme, rec.Version()))
	require.InDelta(t, tokenstore.TombstoneLife, ttl(), float64(time.Minute))
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}))
	require.Negative(t, ttl(), "a new grant does not inherit the tombstone's end")
}

// Whoever can write to Redis could otherwise prolong a ticket.
func TestAShelvedValueCannotBeProlonged(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	require.NoError(t, s.Put(t.Context(), "id", []byte("v"), 200*time.Millisecond))
	end := time.Now().Add(200 * time.Millisecond)
	keys := behind.Keys(t.Context(), "*:s:*").Val()
	require.Len(t, keys, 1)
	require.True(t, behind.Persist(t.Context(), keys[0]).Val())
	require.Eventually(t, func() bool { return time.Now().After(end) }, 5*time.Second, 5*time.Millisecond)
	values, err := s.Peek(t.Context(), "id")
	require.NoError(t, err)
	require.Equal(t, [][]byte{nil}, values)
	_, err = s.Take(t.Context(), "id")
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
}

func TestClosingRedisEndsEverything(t *testing.T) {
	server := storetest.StartRedis(t)
	before := goleak.IgnoreCurrent()
	s, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: server.URL, Keys: storetest.Keys(t)})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = s.Get(t.Context(), acme)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	goleak.VerifyNone(t, before)
}
