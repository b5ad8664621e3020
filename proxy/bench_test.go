package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// The benchmarks compare a proxied request (caller key, org, warm token, metrics, log line) with the same request through a bare
// httputil.ReverseProxy with the same transport and buffers, in the same run.

func benchUpstream(b *testing.B, size int) *httptest.Server {
	answer := make([]byte, size)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	b.Cleanup(upstream.Close)
	return upstream
}

func bifrostHandler(b *testing.B, upstream string, orgs int, logRequests bool) http.Handler {
	p, err := New(Config{
		Broker:      warmBroker(b, orgs),
		Callers:     []Caller{{Name: "workflows", Key: func() string { return callerKey }, Orgs: []string{"*"}, Integrations: []string{"*"}}},
		Log:         slog.New(slog.NewJSONHandler(io.Discard, nil)),
		LogRequests: logRequests,
		Metrics:     NewMetrics(prometheus.NewRegistry()),
		Routes: []Route{{Integration: "Microsoft_Graph", Prefix: "/graph", Target: func(tokenstore.Org) (Target, error) {
			return Target{BaseURL: upstream}, nil
		}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	for i := range orgs { // and every org has been here before
		if _, err := p.routes[0].targetOf(benchOrg(i)); err != nil {
			b.Fatal(err)
		}
	}
	return p
}

func benchOrg(i int) tokenstore.Org { return tokenstore.Org(fmt.Sprint("org-", 7+i)) }

// warmBroker is a Broker over a file store that has a connection of every org in memory.
func warmBroker(b *testing.B, orgs int) *authflow.Broker {
	provider := authflowtest.InMemory(b, authflowtest.Config{Lifetime: 24 * time.Hour})
	broker, err := authflow.New(authflow.Config{
		Store: storetest.OpenFile(b),
		Integrations: []*authflow.Integration{{
			Name: "Microsoft_Graph", ClientID: provider.ClientID(), ClientSecret: provider.ClientSecret, Fallback: true,
			Resolve: func(tokenstore.Org) (authflow.Endpoints, error) {
				return authflow.Endpoints{TokenURL: provider.TokenURL}, nil
			},
		}},
		PublicURL: "https://bifrost.test",
		Transport: provider.Transport(),
		Metrics:   prometheus.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	for i := range orgs {
		slot := tokenstore.Slot{Integration: "Microsoft_Graph", Org: benchOrg(i)}
		if _, err := broker.Import(b.Context(), slot, provider.Issue(string(slot.Org)).Refresh, "bench"); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		if err := broker.Wait(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return broker
}

func bareHandler(b *testing.B, upstream string) http.Handler {
	base, err := url.Parse(upstream)
	if err != nil {
		b.Fatal(err)
	}
	transport := newTransport(Route{})
	b.Cleanup(transport.CloseIdleConnections)
	return http.StripPrefix("/graph", &httputil.ReverseProxy{
		Rewrite:    func(pr *httputil.ProxyRequest) { pr.SetURL(base) },
		Transport:  transport,
		BufferPool: &plainPool{},
	})
}

// plainPool is the pool of a bare httputil.ReverseProxy.
type plainPool struct{ buffers }

func (p *plainPool) Get() []byte    { return p.get(false) }
func (p *plainPool) Put(buf []byte) { p.put(buf) }

// discard is a ResponseWriter that costs as little as one can.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

func benchRequest(b *testing.B) *http.Request {
	r := httptest.NewRequestWithContext(b.Context(), "GET", "/graph/v1.0/users?$top=5", nil)
	r.Header.Set("Authorization", "Bearer "+callerKey)
	r.Header.Set("X-Org-ID", "org-7")
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "workflows/1.0")
	return r
}

// run serves n requests one after the other and returns the time and the allocations of one.
func run(b *testing.B, h http.Handler, n int) (each time.Duration, allocs, bytes float64) {
	r := benchRequest(b)
	w := &discard{}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	for range n {
		w.header = make(http.Header)
		h.ServeHTTP(w, r)
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	return took / time.Duration(n), float64(after.Mallocs-before.Mallocs) / float64(n), float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
}

// BenchmarkAgainstBare reports the ratios: x-bare-time and x-bare-allocs, and what is added in numbers. The two are measured in
// turns, so that neither has the quieter machine.
func BenchmarkAgainstBare(b *testing.B) {
	for _, mode := range []struct {
		name string
		log  bool
		orgs int
	}{{"log", true, 1}, {"nolog", false, 1}, {"log-10000-orgs", true, 10_000}} {
		b.Run(mode.name, func(b *testing.B) {
			upstream := benchUpstream(b, 200)
			ours, bare := bifrostHandler(b, upstream.URL, mode.orgs, mode.log), bareHandler(b, upstream.URL)
			run(b, ours, 50)
			run(b, bare, 50)
			var oursTime, bareTime time.Duration
			var oursAllocs, bareAllocs, oursBytes, bareBytes float64
			const turn = 200
			turns := 0
			for b.Loop() {
				if turns++; turns%turn != 1 {
					continue // one iteration is one request of each: a turn does them together
				}
				each, allocs, bytes := run(b, ours, turn)
				oursTime, oursAllocs, oursBytes = oursTime+each, oursAllocs+allocs, oursBytes+bytes
				each, allocs, bytes = run(b, bare, turn)
				bareTime, bareAllocs, bareBytes = bareTime+each, bareAllocs+allocs, bareBytes+bytes
			}
			rounds := float64((turns + turn - 1) / turn)
			b.ReportMetric(float64(oursTime)/float64(bareTime), "x-bare-time")
			b.ReportMetric(oursAllocs/bareAllocs, "x-bare-allocs")
			b.ReportMetric((oursAllocs-bareAllocs)/rounds, "added-allocs/op")
			b.ReportMetric((oursBytes-bareBytes)/rounds, "added-B/op")
		})
	}
}

func BenchmarkProxied(b *testing.B) {
	benchOne(b, func(up string) http.Handler { return bifrostHandler(b, up, 1, true) })
}

func BenchmarkBare(b *testing.B) {
	benchOne(b, func(up string) http.Handler { return bareHandler(b, up) })
}

func benchOne(b *testing.B, make func(upstream string) http.Handler) {
	h := make(benchUpstream(b, 200).URL)
	r := benchRequest(b)
	w := &discard{}
	b.ReportAllocs()
	for b.Loop() {
		w.header = http.Header{}
		h.ServeHTTP(w, r)
	}
}
