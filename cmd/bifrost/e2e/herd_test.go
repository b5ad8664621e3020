package e2e_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const (
	herdReplicas = 3
	herdDelay    = 50 * time.Millisecond // of the provider's answers
	herdPerSweep = 8                     // POSTs of one process's sweep to one token endpoint at a time
)

// herd is how many tokens expire at the same moment, and when.
type herd struct {
	size   int
	lead   time.Duration // from the seeding to the first that is due
	early  time.Duration // from then to their expiry: a fifth of their life
	window time.Duration // over which they become due: a quarter of early
}

// TestHerd lets the tokens of many connections expire at the same moment, with three replicas sweeping one Redis: each is
// refreshed once, by one of them, and the provider sees them come spread out and few at a time.
func TestHerd(t *testing.T) {
	t.Parallel()
	h := herd{size: 1000, lead: 5 * time.Second, early: 30 * time.Second}
	if *outageLasts >= time.Minute {
		h = herd{size: 10_000, lead: 20 * time.Second, early: 2 * time.Minute}
	}
	h.window = h.early / 4
	redis := storetest.StartRedis(t)
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	s := newSite(t, idp)
	s.onRedis(redis.URL)
	s.replace("ops: {listen: OPS}", "ops: {listen: OPS, pprof: true}")
	s.yaml += "log: {requests: false}\n"
	var replicas []*replica
	for range herdReplicas {
		replicas = append(replicas, s.start())
	}
	seeds := newSeeder(t, s, replicas[0])
	posts := idp.Count("")

	orgs := orgsNamed("org", h.size)
	idp.SetLifetime(h.lead + h.early)
	first := time.Now().Add(h.lead)
	seeds.seed(t, orgs, 5*h.early)
	t.Logf("%d connections seeded %v before the first is due", h.size, time.Until(first))
	idp.SetLifetime(time.Hour)
	idp.MisbehaveAlways(authflowtest.SlowAfter(herdDelay))
	replicas[0].remember(t, orgs)
	require.Equal(t, posts, idp.Count(""), "refreshed before any was due")

	meter := newCommandMeter(t, redis)
	meter.since()
	usage := usageOf(replicas)
	require.Eventually(t, func() bool { return idp.Count("") >= posts+h.size }, h.lead+h.early, 100*time.Millisecond,
		"not every token was refreshed before they expired")
	commands, by := meter.since()
	usage.since(t, h.size)
	t.Logf("%.1f Redis commands per refresh: %v", float64(commands)/float64(h.size), busiest(by))
	require.Never(t, func() bool { return idp.Count("") > posts+h.size }, 2*time.Second, 500*time.Millisecond, "more POSTs than connections")
	h.judge(t, idp, posts)
	for i, org := range orgs[:min(len(orgs), 100)] {
		require.Equal(t, http.StatusOK, replicas[i%herdReplicas].call(org, "/graph/me").Status)
	}
}

// judge looks at how the herd came upon the provider.
func (h herd) judge(t *testing.T, idp *authflowtest.Provider, before int) {
	t.Helper()
	for token, n := range idp.Refreshes() {
		require.Equal(t, 1, n, token)
	}
	require.Empty(t, idp.Reuses())
	all := idp.Posts()[before:]
	require.Len(t, all, h.size)
	at := func(share float64) time.Time { return all[min(int(share*float64(h.size)), h.size-1)].Time }
	buckets := make([]int, 10)
	begin := at(0)
	for _, post := range all {
		buckets[min(int(10*post.Time.Sub(begin)/h.window), 9)]++
	}
	t.Logf("POSTs by tenth of the window of %v: %v; 90 %% of them within %v, all within %v; at most %d at a time",
		h.window, buckets, at(.95).Sub(at(.05)), at(1).Sub(begin), idp.MaxConcurrent())
	require.GreaterOrEqual(t, at(.95).Sub(at(.05)), h.window/2)
	require.LessOrEqual(t, idp.MaxConcurrent(), herdReplicas*herdPerSweep)
}

// remember has the replica take all connections into memory, and tells what that costs.
func (r *replica) remember(t *testing.T, orgs []string) {
	t.Helper()
	r.touch(t, orgs[:1])
	before, resident := r.heap(), r.metric("process_resident_memory_bytes")
	began := time.Now()
	r.touch(t, orgs)
	after := r.heap()
	t.Logf("%d connections taken into memory in %v: %.0f bytes each in the heap; resident %.1f MiB, then %.1f MiB", len(orgs),
		time.Since(began), (after-before)/float64(len(orgs)), resident/(1<<20), r.metric("process_resident_memory_bytes")/(1<<20))
}

func (r *replica) touch(t *testing.T, orgs []string) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(32)
	for _, org := range orgs {
		req := r.proxied(org, "/graph/me")
		group.Go(func() error {
			if got := outcome(r.try(req)); got != "200" {
				t.Errorf("%s: %s", org, got)
			}
			return nil
		})
	}
	_ = group.Wait() // the functions return no error
}

// heap is what is alive in the heap, in bytes.
func (r *replica) heap() float64 {
	r.t.Helper()
	require.Equal(r.t, http.StatusOK, r.send(r.request(http.MethodGet, r.ops+"/debug/pprof/heap?gc=1", "")).Status)
	return r.metric("go_memstats_heap_alloc_bytes")
}

// usage is what replicas have used.
type usage struct {
	replicas []*replica
	cpu      []float64
	ops      map[string]float64
}

var storeOps = []string{"get", "save", "acquire", "release", "renew", "peek", "put", "take", "due", "list"}

func usageOf(replicas []*replica) *usage {
	u := &usage{replicas: replicas, ops: map[string]float64{}}
	for _, r := range replicas {
		u.cpu = append(u.cpu, r.metric("process_cpu_seconds_total"))
		for _, op := range storeOps {
			u.ops[op] += r.metric("bifrost_store_operation_duration_seconds_count", `op="`+op+`"`)
		}
	}
	return u
}

// since tells what has been used since, per refresh.
func (u *usage) since(t *testing.T, refreshes int) {
	t.Helper()
	now := usageOf(u.replicas)
	cpu := 0.0
	for i, r := range u.replicas {
		cpu += now.cpu[i] - u.cpu[i]
		t.Logf("replica %d: %.1f s of CPU, resident %.1f MiB, %.0f refreshes", i, now.cpu[i]-u.cpu[i],
			r.metric("process_resident_memory_bytes")/(1<<20), r.metric("bifrost_token_refreshes_total", `result="ok"`))
	}
	t.Logf("%.2f ms of CPU per refresh", 1000*cpu/float64(refreshes))
	for _, op := range storeOps {
		if n := now.ops[op] - u.ops[op]; n > 0 {
			t.Logf("%.2f store operations per refresh: %s", n/float64(refreshes), op)
		}
	}
}
