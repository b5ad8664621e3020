package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// probeTimeout bounds the look at the store for /readyz: a probe must be answered before its own timeout of a second.
const probeTimeout = 300 * time.Millisecond

// newRegistry returns a registry with what every process tells.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildInfo(),
	)
	return reg
}

// memProfileRate is Go's default: one allocation in so many bytes is in the profile.
const memProfileRate = 512 << 10

// opsHandler serves metrics and health, and pprof if profile is set.
func opsHandler(reg *prometheus.Registry, ready *atomic.Bool, store store, profile bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { // depends on nothing
		writeHealth(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		body := map[string]any{"status": "ok", "store": storeState(r.Context(), store)}
		if s, is := store.(interface{ Problems() []string }); is && len(s.Problems()) > 0 {
			body["store_problems"] = s.Problems()
		}
		if ready.Load() {
			writeHealth(w, http.StatusOK, body)
			return
		}
		body["status"] = "stopping"
		writeHealth(w, http.StatusServiceUnavailable, body)
	})
	if profile {
		if runtime.MemProfileRate == 0 {
			runtime.MemProfileRate = memProfileRate
		}
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// storeState says whether the store answers now. It is told, and decides nothing.
func storeState(ctx context.Context, store store) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := store.Ping(ctx); err != nil {
		return "unavailable"
	}
	return "ok"
}

func writeHealth(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}
