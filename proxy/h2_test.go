package proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// overHTTP2 puts the proxy behind a listener that speaks HTTP/2.
func (b *bench) overHTTP2(t *testing.T) {
	t.Helper()
	b.front.Close()
	b.front = httptest.NewUnstartedServer(b.proxy)
	b.front.EnableHTTP2 = true
	b.front.StartTLS()
	t.Cleanup(b.front.Close)
}

func TestCallersMaySpeakHTTP2(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) { r.MaxBody = 1 << 20 }))
	b.overHTTP2(t)
	body := strings.Repeat("x", 300<<10)
	res, got := b.do(t, b.request(t, "POST", "/graph/a%2Fb?x=%zz", body))
	require.Equal(t, "HTTP/2.0", res.Proto)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "ok", got)
	require.Equal(t, body, b.last(t).body)
	require.Equal(t, "/a%2Fb?x=%zz", b.last(t).RequestURI)

	// HTTP/2 does not trim values: the answer must be the one of HTTP/1.
	for _, org := range []string{" acme", "acme\t", "acme "} {
		r := b.request(t, "GET", "/graph/x", "")
		r.Header["X-Org-Id"] = []string{org}
		res, _ = b.do(t, r)
		require.Equal(t, "org_invalid", res.Header.Get("X-Bifrost-Error"), "%q", org)
	}
}

func TestAnEarlyAnswerOverHTTP2EndsCleanly(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) })
	b.overHTTP2(t)
	for range 20 {
		res, err := b.front.Client().Transport.RoundTrip(b.request(t, "POST", "/graph/x", strings.Repeat("x", 1<<20)))
		require.NoError(t, err)
		require.Equal(t, http.StatusConflict, res.StatusCode)
		_, _ = io.Copy(io.Discard, res.Body) // a reset after the answer is fine
		_ = res.Body.Close()
	}
}

func TestCloseLetsGoOfIdleConnections(t *testing.T) {
	var open atomic.Int64
	b := start(t, nil, func(b *bench, _ *Config, r *Route) {
		counting := httptest.NewUnstartedServer(b.upstream.Config.Handler)
		counting.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		}
		counting.Start()
		t.Cleanup(counting.Close)
		r.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: counting.URL}, nil }
	})
	b.get(t, "/graph/x")
	b.get(t, "/graph/x")
	require.EqualValues(t, 1, open.Load(), "the second request reuses the connection")
	require.NoError(t, b.proxy.Close())
	require.Eventually(t, func() bool { return open.Load() == 0 }, 5*time.Second, time.Millisecond)
}
