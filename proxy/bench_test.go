package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"
)

func benchUpstream(b *testing.B, size int) *httptest.Server {
	answer := make([]byte, size)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	b.Cleanup(upstream.Close)
	return upstream
}

// run serves n requests one after the other and returns the time and the allocations of one.
func run(b *testing.B, h http.Handler, n int) (each time.Duration, allocs, bytes float64) {
	r := warmRequest(b, 0)
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

// BenchmarkHandlerAgainstBare calls the two handlers without a server or a client around them, and reports their ratios and what
// ours adds in allocations. The two are measured in turns, so that neither has the quieter machine.
func BenchmarkHandlerAgainstBare(b *testing.B) {
	for _, ours := range []warm{{orgs: 1, log: true}, {orgs: 1}, {orgs: 10_000, log: true}} {
		b.Run(fmt.Sprintf("orgs=%d/log=%s", ours.orgs, onOff(ours.log)), func(b *testing.B) {
			upstream := benchUpstream(b, 200)
			againstBare(b, warmProxy(b, upstream.URL, ours), bareProxy(b, upstream.URL, nil))
		})
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func againstBare(b *testing.B, ours, bare http.Handler) {
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
}

func BenchmarkProxied(b *testing.B) {
	benchOne(b, func(up string) http.Handler { return warmProxy(b, up, warm{orgs: 1, log: true}) })
}

func BenchmarkBare(b *testing.B) {
	benchOne(b, func(up string) http.Handler { return bareProxy(b, up, nil) })
}

func benchOne(b *testing.B, make func(upstream string) http.Handler) {
	h := make(benchUpstream(b, 200).URL)
	r := warmRequest(b, 0)
	w := &discard{}
	b.ReportAllocs()
	for b.Loop() {
		w.header = http.Header{}
		h.ServeHTTP(w, r)
	}
}
