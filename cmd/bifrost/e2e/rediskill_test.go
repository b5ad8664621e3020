package e2e_test

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// TestRedisKilled kills Redis under load with tokens that are refreshed all the time, at a provider that revokes a grant whose
// refresh token comes twice. The processes that got the tokens live on: no grant is lost, whatever Redis has forgotten, and
// requests are told nothing worse than to come again.
func TestRedisKilled(t *testing.T) {
	t.Parallel()
	for name, forgets := range map[string]bool{"and forgets nothing": false, "and forgets the last second": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := storetest.StartRedis(t)
			idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: 3 * time.Second})
			idp.MisbehaveAlways(authflowtest.SlowAfter(answerDelay))
			s := newSite(t, idp)
			s.onRedis(redis.URL)
			s.yaml += "    timeouts: {token: 2s}\n" // what bounds the wait for what a forgetful store may have known
			replicas := []*replica{s.start(), s.start()}
			orgs := orgsNamed("org", 40)
			for _, org := range orgs {
				replicas[0].adopt(org)
			}
			load, stop := keepCalling(replicas, orgs)
			busy := func(posts int) {
				enough := idp.Count("refresh_token") + posts
				require.Eventually(t, func() bool { return idp.Count("refresh_token") >= enough }, patience, time.Millisecond)
			}
			busy(2 * len(orgs))
			var restore func()
			if forgets {
				restore = remembered(t, redis)
			}
			before := idp.Count("refresh_token")
			busy(len(orgs) / 4)
			redis.Kill()
			lost := idp.Count("refresh_token") - before
			if forgets {
				restore()
			}
			redis.Restart()
			back := time.Now()
			busy(len(orgs))
			for _, org := range orgs {
				for i, r := range replicas {
					require.Eventually(t, func() bool { return r.call(org, "/graph/me").Status == http.StatusOK }, patience, pollTime, "%s at replica %d", org, i)
				}
			}
			healed := time.Since(back)
			stop()
			seen := load.outcomes(time.Time{})
			t.Logf("%d refreshes in the last moments before the kill; all connections served %v after Redis was back; requests: %v", lost, healed, load)
			for outcome := range maps.Keys(seen) {
				require.Contains(t, []string{"200", "503 store_unavailable", "503 refresh_pending", "503 idp_unavailable"}, outcome)
			}
			require.Empty(t, idp.Reuses())
			for _, org := range orgs {
				require.NotEqual(t, "needs_reconnect", replicas[1].status(org), org)
			}
		})
	}
}

// keepCalling sends requests for all orgs at all replicas until stop.
func keepCalling(replicas []*replica, orgs []string) (load *samples, stop func()) {
	load = &samples{}
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				r := replicas[i%len(replicas)]
				load.send(r, r.proxied(orgs[i/len(replicas)%len(orgs)], "/graph/me"))
			case <-done:
				return
			}
		}
	})
	return load, func() {
		close(done)
		all.Wait()
		load.flying.Wait()
	}
}

// remembered copies what the server has on its disk and returns what puts it back, once the server is dead.
func remembered(t *testing.T, server *storetest.RedisServer) (restore func()) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	defer client.Close()
	found, err := client.ConfigGet(t.Context(), "dir").Result()
	require.NoError(t, err)
	dir := filepath.Join(found["dir"], "appendonlydir")
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		files[entry.Name()], err = os.ReadFile(filepath.Join(dir, entry.Name()))
		require.NoError(t, err)
	}
	require.NotEmpty(t, slices.Collect(maps.Keys(files)))
	return func() {
		for name, content := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
	}
}
