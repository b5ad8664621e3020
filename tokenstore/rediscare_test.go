package tokenstore_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestARedisThatWouldLoseConnectionsIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		args    []string
		accept  bool
		refused string
		warned  []string
	}{
		"it evicts":                       {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, true, "noeviction", nil},
		"it evicts what expires: leases":  {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "volatile-ttl"}, false, "noeviction", nil},
		"it is never full":                {[]string{"--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"}, false, "", []string{}},
		"it is full some day":             {[]string{"--maxmemory", "100mb", "--maxmemory-policy", "noeviction"}, false, "", []string{}},
		"it keeps nothing":                {[]string{"--appendonly", "no"}, false, "accept_data_loss", nil},
		"it keeps nothing, which is fine": {[]string{"--appendonly", "no"}, true, "", []string{}},
		"it makes snapshots":              {[]string{"--appendonly", "no", "--save", "60 1"}, false, "", []string{"snapshots"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := storetest.StartRedis(t, tc.args...)
			s, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: server.URL, Keys: storetest.Keys(t), AcceptDataLoss: tc.accept})
			if tc.refused == "" {
				require.NoError(t, err)
				require.Equal(t, tc.warned, s.Problems())
				require.NoError(t, s.Close())
				return
			}
			require.ErrorContains(t, err, tc.refused)
			require.NotErrorIs(t, err, tokenstore.ErrUnavailable, "trying again does not help")
			require.Empty(t, direct(t, server).Keys(t.Context(), "*").Val(), "nothing was written")
		})
	}
}

func TestARedisInTheOpenIsRefused(t *testing.T) {
	for url, refused := range map[string]string{
		"redis://redis.invalid:6379":                        "TLS",
		"redis://:CANARY@192.0.2.1:6379":                    "TLS",
		"rediss://redis.invalid:6379":                       "password",
		"rediss://user:@redis.invalid:6379":                 "password",
		"rediss://:CANARY@redis.invalid:1":                  "",
		"redis://127.0.0.1:1?cluster=true&addr=192.0.2.1:1": "TLS",
		"rediss://:CANARY@192.0.2.1:1?master_name=m":        "password", // it is the Sentinel's
		"redis://localhost:1":                               "",
		"redis://[::1]:1":                                   "",
	} {
		t.Run(url, func(t *testing.T) {
			err := tokenstore.CheckRedisURL(url, false)
			require.NoError(t, tokenstore.CheckRedisURL(url, true))
			if refused == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, refused)
			require.ErrorContains(t, err, "allow_insecure")
			require.NotContains(t, err.Error(), "CANARY")
		})
	}
}

func TestAMissingRightEndsTheStartByItsName(t *testing.T) {
	server := storetest.StartRedis(t)
	behind := direct(t, server)
	open := func(password string) error {
		s, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{
			URL: "redis://bifrost:" + password + "@" + server.Addr, Keys: storetest.Keys(t), WaitReplicas: 1,
		})
		if err == nil {
			require.NoError(t, s.Close())
		}
		return err
	}
	for _, command := range []string{"get", "set", "del", "exists", "hset", "hmget", "pexpire", "persist", "zadd", "zrem", "zscore", "zrange",
		"zrangebyscore", "eval", "evalsha", "time", "info", "publish", "subscribe", "ping", "wait"} {
		require.NoError(t, restrict(t.Context(), behind, "+wait", "-"+command))
		err := open("CANARY")
		require.ErrorContains(t, err, "it may not "+command+" on", command)
		require.NotErrorIs(t, err, tokenstore.ErrUnavailable)
	}
	require.NoError(t, restrict(t.Context(), behind, "+wait", "resetkeys", "~other:*"))
	require.ErrorContains(t, open("CANARY"), "bifrost:*")
	require.NoError(t, restrict(t.Context(), behind, "+wait", "resetkeys", "~bifrost:*", "resetchannels"))
	require.ErrorContains(t, open("CANARY"), "publish, subscribe on")
	require.NoError(t, restrict(t.Context(), behind, "+wait"))

	err := open("CANARY-wrong")
	require.ErrorContains(t, err, "password")
	require.NotErrorIs(t, err, tokenstore.ErrUnavailable)
	require.NotContains(t, err.Error(), "CANARY")

	require.NoError(t, behind.FlushAll(t.Context()).Err()) // of probes that could not be deleted
	require.NoError(t, open("CANARY"))
	require.Empty(t, behind.Keys(t.Context(), "*probe*").Val(), "no probe is left over")
}

// A replica of ours that is restarted meanwhile must come up: the tokens that are stored already can be used.
func TestAStoreIsOpenedThoughRedisTakesNoWrites(t *testing.T) {
	for name, setting := range map[string][2]string{"full": {"maxmemory", "1"}, "too few replicas": {"min-replicas-to-write", "1"}} {
		t.Run(name, func(t *testing.T) {
			server := storetest.StartRedis(t)
			behind := direct(t, server)
			rec := storetest.Grant()
			require.NoError(t, storetest.OpenRedis(t, server.URL).Save(t.Context(), acme, rec, tokenstore.Version{}))
			require.NoError(t, behind.ConfigSet(t.Context(), setting[0], setting[1]).Err())
			got, err := storetest.OpenRedis(t, server.URL).Get(t.Context(), acme)
			require.NoError(t, err)
			require.Equal(t, rec, got)
		})
	}
}

func TestADatabaseAndAClientNameNeedRightsOfTheirOwn(t *testing.T) {
	server := storetest.StartRedis(t)
	behind := direct(t, server)
	for url, right := range map[string]string{"/1": "select", "?client_name=CANARY-name": "client|setname"} {
		require.NoError(t, restrict(t.Context(), behind, "-select", "-client|setname"))
		cfg := tokenstore.RedisConfig{URL: "redis://bifrost:CANARY@" + server.Addr + url, Keys: storetest.Keys(t)}
		_, err := tokenstore.NewRedis(t.Context(), cfg)
		require.ErrorContains(t, err, right)
		require.NotContains(t, err.Error(), "CANARY")
		require.NoError(t, restrict(t.Context(), behind, "+"+right))
		storetest.OpenRedisAs(t, cfg)
	}
}

func TestARedisThatDoesNotTellIsOpenedWithAWarning(t *testing.T) {
	server := storetest.StartRedis(t, "--appendonly", "no", "--save", "60 1")
	require.NoError(t, restrict(t.Context(), direct(t, server)))
	w := openWatched(t, "redis://bifrost:CANARY@"+server.Addr)
	require.Equal(t, []string{"unverifiable"}, w.Problems())
	require.Equal(t, 1, strings.Count(w.log.String(), "level=WARN"), "%s", w.log)
}

func TestWhatGoesWrongLaterIsToldOncePerChange(t *testing.T) {
	for problem, tc := range map[string]struct {
		breaks, mends func(*testing.T, *redis.Client)
	}{
		"eviction": {
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.ConfigSet(t.Context(), "maxmemory", "100mb").Err())
				require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-random").Err())
			},
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
			},
		},
		"persistence": {
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.ConfigSet(t.Context(), "appendonly", "no").Err())
			},
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.ConfigSet(t.Context(), "appendonly", "yes").Err())
			},
		},
		"snapshots": {
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.ConfigSet(t.Context(), "save", "60 1").Err())
				require.NoError(t, c.ConfigSet(t.Context(), "appendonly", "no").Err())
			},
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.ConfigSet(t.Context(), "appendonly", "yes").Err())
			},
		},
		"replication": {
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err())
			},
			func(t *testing.T, c *redis.Client) {
				require.NoError(t, c.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err())
			},
		},
		"disk": {breakDisk, mendDisk},
	} {
		t.Run(problem, func(t *testing.T) {
			server := storetest.StartRedis(t, "--enable-protected-configs", "yes") // for CONFIG SET dir
			behind := direct(t, server)
			w := openWatched(t, server.URL)
			require.Empty(t, w.Problems())
			require.Equal(t, make([]float64, 7), w.gauges(t))

			tc.breaks(t, behind)
			for range 2 {
				w.Look(t.Context())
				require.Equal(t, []string{problem}, w.Problems())
				require.InDelta(t, 1, value(t, w.reg, "bifrost_store_problem", problem), 0)
			}
			require.Equal(t, 1, strings.Count(w.log.String(), "level=WARN"), "%s", w.log)
			server.Pause()
			w.Look(t.Context())
			require.Equal(t, []string{problem}, w.Problems(), "a server that does not answer has not mended")
			server.Resume()

			tc.mends(t, behind)
			require.Eventually(t, func() bool { w.Look(t.Context()); return len(w.Problems()) == 0 }, 10*time.Second, 5*time.Millisecond)
			require.Equal(t, make([]float64, 7), w.gauges(t))
			require.Equal(t, 1, strings.Count(w.log.String(), "level=INFO"), "%s", w.log)
		})
	}
}

func TestAnEmptiedRedisIsAProblem(t *testing.T) {
	server := storetest.StartRedis(t)
	w := openWatched(t, server.URL)
	require.NoError(t, direct(t, server).FlushAll(t.Context()).Err())
	w.Look(t.Context())
	require.Equal(t, []string{"emptied"}, w.Problems())
	require.Empty(t, direct(t, server).Keys(t.Context(), "*").Val(), "looking writes nothing into it")
}

// The first lease of a connection may come hours after a failover: it must not look as if that had just been.
func TestAFailoverIsNoticedBeforeTheNextLease(t *testing.T) {
	server := storetest.StartRedis(t, "--appendfsync", "always")
	s := storetest.OpenRedis(t, server.URL)
	server.Kill()
	server.Restart()
	comesBack(t, s)
	s.Look(t.Context())
	looked := time.Now()
	require.Eventually(t, func() bool { return time.Since(looked) > 300*time.Millisecond }, 5*time.Second, 5*time.Millisecond)
	require.WithinDuration(t, looked, since(t, s), 200*time.Millisecond)
}

// breakDisk lets a snapshot fail, as a full disk does.
func breakDisk(t *testing.T, c *redis.Client) {
	t.Helper()
	require.NoError(t, c.ConfigSet(t.Context(), "save", "3600 1000000").Err())
	dir := c.ConfigGet(t.Context(), "dir").Val()["dir"]
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, c.BgSave(t.Context()).Err())
	require.Eventually(t, func() bool {
		return strings.Contains(c.Info(t.Context(), "persistence").Val(), "rdb_last_bgsave_status:err")
	}, 10*time.Second, 5*time.Millisecond)
}

// mendDisk lets the next snapshot succeed.
func mendDisk(t *testing.T, c *redis.Client) {
	t.Helper()
	require.NoError(t, c.ConfigSet(t.Context(), "dir", t.TempDir()).Err())
	require.NoError(t, c.BgSave(t.Context()).Err())
}

// watched is a store with its metrics and its log.
type watched struct {
	*tokenstore.Redis
	reg *prometheus.Registry
	log *bytes.Buffer
}

func openWatched(t *testing.T, url string) watched {
	t.Helper()
	w := watched{reg: prometheus.NewPedanticRegistry(), log: &bytes.Buffer{}}
	w.Redis = storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: url, Metrics: w.reg, Log: slog.New(slog.NewTextHandler(w.log, nil))})
	return w
}

// gauges returns every problem's series.
func (w watched) gauges(t *testing.T) (values []float64) {
	t.Helper()
	for _, problem := range []string{"eviction", "persistence", "snapshots", "disk", "replication", "emptied", "unverifiable"} {
		values = append(values, value(t, w.reg, "bifrost_store_problem", problem))
	}
	return values
}
