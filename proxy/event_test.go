package proxy

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// events returns the request lines once there are n of them: a line is written after its answer.
func (b *bench) events(t *testing.T, n int) []map[string]any {
	t.Helper()
	var lines []map[string]any
	require.Eventually(t, func() bool {
		lines = nil
		for text := range strings.Lines(b.logs.String()) {
			var fields map[string]any
			if json.Unmarshal([]byte(text), &fields) == nil && fields["msg"] == "request" {
				lines = append(lines, fields)
			}
		}
		return len(lines) >= n
	}, 5*time.Second, time.Millisecond)
	return lines
}

func TestEveryRequestIsOneLine(t *testing.T) {
	b := start(t, nil)
	b.do(t, b.request(t, "POST", "/graph/CANARY-path?CANARY-query", "CANARY-body", "X-Request-ID: first", "Cookie: CANARY"))
	b.get(t, "/nowhere/CANARY", "X-Request-ID: second")
	b.get(t, "/graph/x", "X-Org-ID: CANARY org", "X-Request-ID: third")
	lines := b.events(t, 3)
	for _, l := range lines {
		require.NotEmpty(t, l["time"])
		require.Greater(t, l["duration"], 0.0)
		require.Less(t, l["duration"], 60.0, "in seconds")
		for _, name := range []string{"time", "duration", "level", "msg"} {
			delete(l, name)
		}
	}
	require.Equal(t, []map[string]any{
		{"request_id": "first", "method": "POST", "route": "/graph", "integration": "Microsoft_Graph", "org": "acme", "connection": "org", "status": 200.0, "code": ""},
		{"request_id": "second", "method": "GET", "route": "", "integration": "", "org": "", "connection": "", "status": 404.0, "code": "unknown_route"},
		{"request_id": "third", "method": "GET", "route": "/graph", "integration": "Microsoft_Graph", "org": "", "connection": "", "status": 400.0, "code": "org_invalid"},
	}, lines)
	require.NotContains(t, b.logs.String(), "CANARY")
}

func TestAnAnswerThatBreaksOffIsStillLogged(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "200000")
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	})
	res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", "/graph/x", ""))
	require.NoError(t, err)
	_, err = io.ReadAll(res.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, 200.0, b.events(t, 1)[0]["status"])
}

func TestRequestLinesCanBeSwitchedOff(t *testing.T) {
	b := start(t, nil, onConfig(func(c *Config) { c.LogRequests = false }))
	b.get(t, "/graph/x")
	require.Empty(t, b.logs.String())
}

func TestMetrics(t *testing.T) {
	b := start(t, nil)
	b.get(t, "/graph/x")
	b.get(t, "/graph/x", "X-Org-ID: -")
	b.get(t, "/nowhere")
	b.events(t, 3)
	require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(`
# HELP bifrost_requests_in_flight Requests being served now.
# TYPE bifrost_requests_in_flight gauge
bifrost_requests_in_flight 0
# HELP bifrost_requests_total Proxied requests by HTTP status code and who made the answer (upstream or proxy).
# TYPE bifrost_requests_total counter
bifrost_requests_total{code="200",integration="Microsoft_Graph",origin="upstream"} 1
bifrost_requests_total{code="400",integration="Microsoft_Graph",origin="proxy"} 1
bifrost_requests_total{code="404",integration="",origin="proxy"} 1
`), "bifrost_requests_total", "bifrost_requests_in_flight"))
	require.Equal(t, 1.0, testutil.ToFloat64(b.proxy.metrics.errors.WithLabelValues("Microsoft_Graph", "org_invalid")))
	require.Equal(t, 1.0, testutil.ToFloat64(b.proxy.metrics.errors.WithLabelValues("", "unknown_route")))
	problems, err := testutil.GatherAndLint(b.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestAReloadGoesOnCounting(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics := NewMetrics(reg)
	for range 2 {
		b := start(t, nil, onConfig(func(c *Config) { c.Metrics = metrics }))
		b.get(t, "/graph/x")
		b.events(t, 1)
	}
	require.Equal(t, 2.0, testutil.ToFloat64(metrics.requests.WithLabelValues("Microsoft_Graph", "200", "upstream")))
}
