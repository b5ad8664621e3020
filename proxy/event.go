package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// event is the record of one request, filled on the way and written once: one log line and the metrics.
type event struct {
	began      time.Time
	id         string
	status     int
	code       code   // empty for an upstream's answer
	connection string // whose credential was sent last: "org", "global", or empty
	byUpstream bool
}

// failed notes a failure of the proxy's own.
func (x *exchange) failed(f *failure) {
	x.code, x.status, x.byUpstream = f.code, meanings[f.code].status, false
	if f.cause != nil && x.proxy.log.Enabled(context.Background(), slog.LevelDebug) {
		x.proxy.log.LogAttrs(context.Background(), slog.LevelDebug, "request failed",
			slog.String("request_id", x.id), slog.String("code", string(f.code)), slog.String("cause", causeOf(f.cause)))
	}
}

// report ends the event. It runs whichever way the request ended, an aborted answer included.
func (x *exchange) report() {
	took := time.Since(x.began)
	m := x.proxy.unrouted
	var integration, prefix string
	if x.route != nil {
		m, integration, prefix = x.route.metrics, x.route.Integration, x.route.Prefix
	}
	if x.api {
		prefix = reserved
	}
	m.count(x.status, x.byUpstream)
	if failures := m.failures[x.code]; failures != nil {
		failures.Inc()
	}
	if x.status != http.StatusSwitchingProtocols { // a tunnel's hours say nothing of how fast answers are
		m.duration.Observe(took.Seconds())
	}
	m.all.inFlight.Dec()
	if x.proxy.logRequests {
		x.log(took, prefix, integration)
	}
}

// log writes the request's line. It goes to the handler itself: a Logger would look for the line of code, which nobody wants to know.
func (x *exchange) log(took time.Duration, prefix, integration string) {
	h := x.proxy.log.Handler()
	if !h.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	line := slog.NewRecord(x.began.Add(took), slog.LevelInfo, "request", 0)
	line.AddAttrs(
		slog.String("request_id", x.id),
		slog.String("method", x.r.Method),
		slog.String("route", prefix),
		slog.String("integration", integration),
		slog.String("org", string(x.org)),
		slog.String("connection", x.connection),
		slog.Int("status", x.status),
		slog.String("code", string(x.code)),
		slog.Float64("duration", took.Seconds()))
	_ = h.Handle(context.Background(), line) // a log that cannot be written cannot be complained of
}
