package e2e_test

import (
	"flag"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// outageLasts is a minute in `make outage`, where nothing else runs and the time of every answer is judged.
var outageLasts = flag.Duration("outage", 7*time.Second, "how long the store is away in the tests of that")

const (
	warmEvery = 4 * time.Millisecond  // between requests of connections in memory
	coldEvery = 50 * time.Millisecond // and of connections that only the store knows
	recovery  = 9 * time.Second       // how long the load goes on after the return of the store: longer than a POST may have been under way

	freshOrgs, dueOrgs, coldOrgs = 150, 50, 100

	// Redis commands in any second after the store's return, all that scripts call included: the sweep's look at 64 shards, two
	// reads of every connection, and what a refresh takes.
	stormBound = 2*64 + 2*3*(freshOrgs+dueOrgs+coldOrgs) + 35*dueOrgs
)

// TestStoreOutage takes Redis away under load, for longer than memory is believed and while tokens become due. Connections in
// memory are served as if nothing had happened, the others are told so at once, nothing is refreshed, and when Redis is back
// there is no storm.
func TestStoreOutage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ begin, end func(*storetest.RedisServer) }{
		"Redis is down": {(*storetest.RedisServer).Stop, (*storetest.RedisServer).Restart},
		"Redis hangs":   {(*storetest.RedisServer).Pause, (*storetest.RedisServer).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t)
			o.load(time.Second, nil)
			posts := o.idp.Count("refresh_token")
			require.Equal(t, 1, posts, "the seeder's")

			c.begin(o.redis)
			warm, cold := o.load(*outageLasts, o.cold)
			require.Equal(t, posts, o.idp.Count("refresh_token"), "POSTs whose result could not be stored")
			t.Logf("away %v: in memory %v", *outageLasts, warm)
			t.Logf("away %v: not in memory %v; %v goroutines, %v looks at the store", *outageLasts, cold, o.metric("go_goroutines"),
				o.metric("bifrost_store_operation_duration_seconds_count", `result="unavailable"`))
			require.Equal(t, []string{"200"}, slices.Collect(maps.Keys(warm.outcomes(time.Time{}))))
			require.Equal(t, []string{"503 store_unavailable"}, slices.Collect(maps.Keys(cold.outcomes(time.Time{}))))
			require.LessOrEqual(t, cold.quantile(.9), 500*time.Millisecond)
			if *outageLasts >= time.Minute {
				require.LessOrEqual(t, cold.quantile(1), 500*time.Millisecond)
			}

			o.idp.MisbehaveAlways(authflowtest.SlowAfter(answerDelay))
			c.end(o.redis)
			o.recovers(t)
		})
	}
}

// outage is a replica on a Redis that goes away.
type outage struct {
	*replica
	redis           *storetest.RedisServer
	idp             *authflowtest.Provider
	warm, due, cold []string // warm includes due
}

func newOutage(t *testing.T) *outage {
	o := &outage{redis: storetest.StartRedis(t)}
	o.idp = newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	s := newSite(t, o.idp)
	s.onRedis(o.redis.URL)
	s.yaml += "    timeouts: {token: 2s}\n"
	o.replica = s.start()
	seeds := newSeeder(t, s, o.replica)
	fresh := orgsNamed("fresh", freshOrgs)
	o.cold, o.due = orgsNamed("cold", coldOrgs), orgsNamed("due", dueOrgs)
	seeds.seed(t, slices.Concat(fresh, o.cold), time.Hour)
	// Tokens are due from 35 s before they expire, or up to 9 s later: while the store is away. They last until it is back.
	o.idp.SetLifetime(*outageLasts + 30*time.Second)
	seeds.seed(t, o.due, 175*time.Second)
	o.idp.SetLifetime(time.Hour)
	o.warm = slices.Concat(fresh, o.due)
	for _, org := range o.warm {
		require.Equal(t, http.StatusOK, o.call(org, "/graph/me").Status)
	}
	return o
}

// load sends requests of warm and cold orgs side by side for d.
func (o *outage) load(d time.Duration, coldOnes []string) (warm, cold *samples) {
	warm, cold = &samples{}, &samples{}
	var both sync.WaitGroup
	both.Go(func() {
		steadily(d, warmEvery, func(i int) { warm.send(o.replica, o.proxied(o.warm[i%len(o.warm)], "/graph/me")) })
	})
	if coldOnes != nil {
		both.Go(func() {
			steadily(d, coldEvery, func(i int) { cold.send(o.replica, o.proxied(coldOnes[i%len(coldOnes)], "/graph/me")) })
		})
	}
	both.Wait()
	return warm, cold
}

// recovers watches the first seconds of a store that is back.
func (o *outage) recovers(t *testing.T) {
	t.Helper()
	back, posts := time.Now(), o.idp.Count("refresh_token")
	meter := newCommandMeter(t, o.redis)
	meter.since()
	var warm, cold *samples
	var load sync.WaitGroup
	load.Go(func() { warm, cold = o.load(recovery, o.cold) })
	steadily(recovery, time.Second, func(second int) {
		all, by := meter.since()
		t.Logf("%d s after its return: %d commands in a second, %d POSTs so far: %v",
			second+1, all, o.idp.Count("refresh_token")-posts, busiest(by))
		require.LessOrEqual(t, all, stormBound)
	})
	load.Wait()
	t.Logf("back: in memory %v", warm)
	t.Logf("back: not in memory %v; POSTs at a time: %d", cold, o.idp.MaxConcurrent())
	require.Equal(t, []string{"200"}, slices.Collect(maps.Keys(warm.outcomes(time.Time{}))))
	require.Equal(t, []string{"200"}, slices.Collect(maps.Keys(cold.outcomes(back.Add(3*time.Second)))))
	require.Eventually(t, func() bool { return o.idp.Count("refresh_token") >= posts+dueOrgs }, patience, pollTime)
	require.Equal(t, posts+dueOrgs, o.idp.Count("refresh_token"), "one POST for each token that became due")
	require.Empty(t, o.idp.Reuses())
	for _, org := range o.due {
		require.Eventually(t, func() bool { return o.status(org) == "active" }, patience, pollTime, org)
	}
}
