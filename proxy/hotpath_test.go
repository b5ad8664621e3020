package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// These are the figures of a warm request that do not depend on the machine.

// answers is an upstream without a network: nothing in it differs from one request to the next.
type answers struct{}

const answered = `{"value":[]}`

func (answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r, ContentLength: int64(len(answered)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(answered)),
	}, nil
}

const nowhere = "http://upstream.test"

// withoutNetwork is a warm proxy before such an upstream.
func withoutNetwork(t *testing.T, set warm) *Proxy {
	t.Helper()
	p := warmProxy(t, nowhere, set)
	p.routes[0].transport.RegisterProtocol("http", answers{})
	expectServed(t, p, warmRequest(t, 0))
	return p
}

func TestAWarmRequestAddsFewAllocations(t *testing.T) {
	const mostAllocs, mostBytes = 8, 1 << 10
	transport := newTransport(Route{})
	transport.RegisterProtocol("http", answers{})
	bareAllocs, bareBytes := quietest(t, bareOver(t, nowhere, transport))
	for _, log := range []bool{true, false} {
		allocs, bytes := quietest(t, withoutNetwork(t, warm{orgs: 1, log: log}))
		t.Logf("log %s: %d allocations and %d bytes beside bare httputil's %d and %d",
			onOff(log), allocs-bareAllocs, bytes-bareBytes, bareAllocs, bareBytes)
		require.LessOrEqual(t, allocs-bareAllocs, mostAllocs)
		require.LessOrEqual(t, bytes-bareBytes, mostBytes)
	}
}

// quietest returns what a request allocates when nothing else does: the least of many. The collector is off, but the race
// detector has pools lose a quarter of what they are given.
func quietest(t *testing.T, h http.Handler) (allocs, bytes int) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	r, w := warmRequest(t, 0), &discard{}
	var before, after runtime.MemStats
	for i := range 500 {
		w.header = make(http.Header, 8)
		runtime.ReadMemStats(&before)
		h.ServeHTTP(w, r)
		runtime.ReadMemStats(&after)
		a, b := int(after.Mallocs-before.Mallocs), int(after.TotalAlloc-before.TotalAlloc)
		if i == 0 || a < allocs || a == allocs && b < bytes {
			allocs, bytes = a, b
		}
	}
	require.Equal(t, http.StatusOK, w.status)
	return allocs, bytes
}

func TestWarmRequestsOpenNoConnections(t *testing.T) {
	const workers, each = 64, 50
	for _, protocol := range []string{"plain", "tls", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			var opened atomic.Int64
			var together sync.WaitGroup // the first requests meet at an HTTP/1 upstream: each has a connection then
			together.Add(workers)
			var first atomic.Int64
			upstream := upstreamOf(t, protocol, func(w http.ResponseWriter, _ *http.Request) {
				if first.Add(1) <= workers {
					together.Done()
					together.Wait()
				}
				_, _ = io.WriteString(w, answered)
			}, func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					opened.Add(1)
				}
			})
			p := warmProxy(t, upstream.URL, warm{orgs: workers, roots: rootsOf(upstream)})
			if protocol == "h2" { // all share the first connection; were none there, each would dial, and some arrive when nobody needs them
				first.Store(workers)
				expectServed(t, p, warmRequest(t, 0))
			}
			inParallel(workers, func(i int) { expectServed(t, p, warmRequest(t, i)) })
			before := opened.Load()
			require.Positive(t, before)
			inParallel(workers, func(i int) {
				r := warmRequest(t, i)
				for range each {
					expectServed(t, p, r)
				}
			})
			require.Equal(t, before, opened.Load(), "connections opened after the warm-up")
		})
	}
}

// inParallel calls do from so many goroutines and waits for them.
func inParallel(workers int, do func(i int)) {
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// Tokens are sealed in the store and nowhere else: who does not ask it decrypts nothing.
func TestWarmRequestsDoNotAskTheStore(t *testing.T) {
	for name, c := range map[string]struct {
		set  warm
		over time.Duration // that the requests take
	}{
		"alone":             {warm{orgs: 300}, 10 * time.Minute},
		"one of several":    {warm{orgs: 300, shared: true}, 2 * time.Second},
		"of one org, alone": {warm{orgs: 1, log: true}, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.set.store = prometheus.NewRegistry()
				p := withoutNetwork(t, c.set)
				before := operations(t, c.set.store)
				require.GreaterOrEqual(t, before, uint64(c.set.orgs), "the connections were saved")
				const rounds = 10
				for range rounds {
					for i := range c.set.orgs {
						expectServed(t, p, warmRequest(t, i))
					}
					<-time.After(c.over / rounds)
				}
				synctest.Wait()
				require.Equal(t, before, operations(t, c.set.store))
			})
		})
	}
}

// operations counts what a store has done so far.
func operations(t *testing.T, of *prometheus.Registry) (all uint64) {
	t.Helper()
	families, err := of.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() != "bifrost_store_operation_duration_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			all += m.GetHistogram().GetSampleCount()
		}
	}
	return all
}

// upstreamOf serves h by a protocol: "plain", "tls" (HTTP/1.1) or "h2".
func upstreamOf(t testing.TB, protocol string, h http.HandlerFunc, state func(net.Conn, http.ConnState)) *httptest.Server {
	t.Helper()
	upstream := httptest.NewUnstartedServer(h)
	upstream.Config.ConnState = state
	upstream.EnableHTTP2 = protocol == "h2"
	if protocol == "plain" {
		upstream.Start()
	} else {
		upstream.StartTLS()
	}
	t.Cleanup(upstream.Close)
	return upstream
}
