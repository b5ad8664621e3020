package proxy

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the request metrics. One Metrics outlives every reload.
type Metrics struct {
	requests *prometheus.CounterVec
	errors   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	replays  *prometheus.CounterVec

	mu     sync.Mutex // guards routes
	routes map[string]*routeMetrics
}

// NewMetrics registers the request metrics with reg; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_requests_total",
			Help: "Proxied requests by HTTP status code and who made the answer (upstream or proxy).",
		}, []string{"integration", "code", "origin"}),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_request_errors_total",
			Help: "Requests that the proxy itself refused or failed, by reason.",
		}, []string{"integration", "reason"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "bifrost_request_duration_seconds",
			Help:    "Time from a request's headers to the end of its answer. WebSocket tunnels are left out.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"integration"}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: "bifrost_requests_in_flight",
			Help: "Requests being served now.",
		}),
		replays: f.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_upstream_replays_total",
			Help: "Requests sent a second time with a newer token after an upstream 401.",
		}, []string{"integration"}),
		routes: make(map[string]*routeMetrics),
	}
}

// routeMetrics are one integration's series, made before the first request so that counting allocates nothing.
type routeMetrics struct {
	all         *Metrics
	integration string
	duration    prometheus.Observer
	replays     prometheus.Counter
	failures    map[code]prometheus.Counter
	upstream    [600]atomic.Pointer[prometheus.Counter] // by status; made on first use
	own         [600]atomic.Pointer[prometheus.Counter]
}

// route returns an integration's series. The empty name stands for requests that reached no integration.
func (m *Metrics) route(integration string) *routeMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.routes[integration]; ok {
		return known
	}
	rm := &routeMetrics{
		all:         m,
		integration: integration,
		duration:    m.duration.WithLabelValues(integration),
		replays:     m.replays.WithLabelValues(integration),
		failures:    make(map[code]prometheus.Counter),
	}
	for c := range meanings {
		if c != codeClientGone {
			rm.failures[c] = m.errors.WithLabelValues(integration, string(c))
		}
	}
	m.routes[integration] = rm
	return rm
}

// count adds a finished request.
func (rm *routeMetrics) count(status int, byUpstream bool) {
	children, origin := &rm.own, "proxy"
	if byUpstream {
		children, origin = &rm.upstream, "upstream"
	}
	if status < 0 || status >= len(children) {
		status = 0 // not a status of RFC 9110: one label for all, or an upstream could make a thousand series
	}
	known := children[status].Load()
	if known == nil {
		fresh := rm.all.requests.WithLabelValues(rm.integration, strconv.Itoa(status), origin)
		known = &fresh
		children[status].Store(known)
	}
	(*known).Inc()
}
