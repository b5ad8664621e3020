package authflow

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

type metrics struct {
	refreshes   *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	lookups     *prometheus.CounterVec
	callbacks   *prometheus.CounterVec
	unpersisted prometheus.Gauge
	connections connectionGauges
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		refreshes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_token_refreshes_total",
			Help: "Answers of token endpoints to refreshes, by what they mean for the connection.",
		}, []string{"integration", "result"}),
		duration: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "bifrost_token_refresh_duration_seconds",
			Help:    "Time of one POST to a token endpoint.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30},
		}, []string{"integration"}),
		lookups: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_token_lookups_total",
			Help: "Credentials given to requests, by where they came from.",
		}, []string{"integration", "source"}),
		callbacks: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_callbacks_total",
			Help: "Authorization callbacks, by result.",
		}, []string{"integration", "result"}),
		unpersisted: auto.NewGauge(prometheus.GaugeOpts{
			Name: "bifrost_unpersisted_tokens",
			Help: "Tokens received that could not be stored yet and are served from memory.",
		}),
	}
	reg.MustRegister(&m.connections)
	return m
}

// integrationMetrics are one integration's children, made once so that the request path looks nothing up.
type integrationMetrics struct {
	lookups  [3]prometheus.Counter // by source
	results  [5]prometheus.Counter // by class
	conflict prometheus.Counter
	duration prometheus.Observer
}

func (m *metrics) of(integration string) integrationMetrics {
	var im integrationMetrics
	for i, name := range []string{fromMemory: "memory", fromStore: "store", fromRefresh: "refresh"} {
		im.lookups[i] = m.lookups.WithLabelValues(integration, name)
	}
	for i, name := range []string{
		granted: "ok", transient: "transient", ambiguous: "ambiguous", dead: "invalid_grant", rejectedClient: "rejected_client",
	} {
		im.results[i] = m.refreshes.WithLabelValues(integration, name)
	}
	im.conflict = m.refreshes.WithLabelValues(integration, "conflict")
	im.duration = m.duration.WithLabelValues(integration)
	for _, result := range callbackResults {
		m.callbacks.WithLabelValues(integration, result) // zero from the start: a counter that appears with its first event has no increase
	}
	return im
}

func (im *integrationMetrics) refreshed(c class) { im.results[c].Inc() }

// connectionGauges publishes the last count of all connections.
type connectionGauges struct {
	last atomic.Pointer[[]prometheus.Metric]
}

var (
	connectionsDesc = prometheus.NewDesc("bifrost_connections", "Connections by status.", []string{"integration", "status"}, nil)
	statusDesc      = prometheus.NewDesc("bifrost_connection_status", "1 for the status that a connection has.", []string{"integration", "org", "status"}, nil)
	expiryDesc      = prometheus.NewDesc("bifrost_token_expiry_timestamp_seconds", "When the access token of a connection expires.", []string{"integration", "org"}, nil)
	refreshedDesc   = prometheus.NewDesc("bifrost_token_last_refresh_timestamp_seconds", "When the access token of a connection was received.", []string{"integration", "org"}, nil)
)

// Describe sends the descriptions.
func (g *connectionGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{connectionsDesc, statusDesc, expiryDesc, refreshedDesc} {
		ch <- d
	}
}

// Collect sends the last count; nothing before the first.
func (g *connectionGauges) Collect(ch chan<- prometheus.Metric) {
	if last := g.last.Load(); last != nil {
		for _, m := range *last {
			ch <- m
		}
	}
}

// keepGauges counts all connections again and again, the more of them the less often, until ctx ends.
func (b *Broker) keepGauges(ctx context.Context) {
	for {
		began := time.Now()
		b.gauge(ctx)
		if !pause(ctx, min(max(gaugesShare*time.Since(began), gaugesEvery), gaugesSeldom)) {
			return
		}
	}
}

// counted is what the gauges tell of a connection. Ten thousand whole ones would be more memory than all else.
type counted struct {
	org                tokenstore.Org
	status             Status
	expires, refreshed float64
}

// gauge counts all connections. While the store is away, the last count stays.
func (b *Broker) gauge(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, gaugesBudget)
	defer cancel()
	all := make(map[string][]counted)
	n := 0
	for slot, entry := range b.store.List(ctx, "") {
		if slot == (tokenstore.Slot{}) {
			b.log.Debug("the connections could not be counted", "error", entry.Err)
			return
		}
		if m := b.managed(slot.Integration); m != nil && entry.Record != nil {
			c := b.describe(m, slot, entry.Record, time.Now())
			all[slot.Integration] = append(all[slot.Integration], counted{slot.Org, c.Status, unix(c.ExpiresAt), unix(c.LastRefresh)})
			n++
		}
	}
	perOrg := b.cfg.PerOrg(n)
	var out []prometheus.Metric
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	for _, in := range b.Integrations() {
		count := make(map[Status]int)
		missing := map[tokenstore.Org]bool{tokenstore.Global: true}
		for _, org := range in.Orgs {
			missing[org] = true
		}
		for _, c := range all[in.Name] {
			count[c.status]++
			delete(missing, c.org)
			if !perOrg {
				continue
			}
			org := string(c.org)
			gauge(statusDesc, 1, in.Name, org, string(c.status))
			gauge(expiryDesc, c.expires, in.Name, org)
			gauge(refreshedDesc, c.refreshed, in.Name, org)
		}
		count[NotConnected] = len(missing)
		for _, s := range Statuses {
			gauge(connectionsDesc, float64(count[s]), in.Name, string(s))
		}
	}
	b.metrics.connections.last.Store(&out)
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
