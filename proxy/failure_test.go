package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// requireProblem asserts everything that every failure of the proxy has in common, and returns its body.
func requireProblem(t *testing.T, res *http.Response, body string, status int, c string) problem {
	t.Helper()
	require.Equal(t, status, res.StatusCode)
	require.Equal(t, c, res.Header.Get("X-Bifrost-Error"))
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"))
	require.Equal(t, "no-store", res.Header.Get("Cache-Control"))
	require.Equal(t, status == 503 || status == 429, res.Header.Get("Retry-After") != "")
	var got problem
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, "urn:bifrost:problem:"+c, got.Type)
	require.NotEmpty(t, got.Title)
	require.NotEmpty(t, got.Detail)
	require.Equal(t, status, got.Status)
	require.Equal(t, code(c), got.Code)
	require.Equal(t, res.Header.Get("X-Request-Id"), got.RequestID)
	require.NotContains(t, body, "CANARY")
	return got
}

func TestWhatTheBrokerCannotProvide(t *testing.T) {
	for reason, row := range map[error]struct {
		status    int
		code      string
		retryable bool
	}{
		authflow.ErrNotConnected:       {424, "not_connected", false},
		authflow.ErrUnresolved:         {424, "not_connected", false},
		authflow.ErrReconnect:          {424, "needs_reconnect", false},
		authflow.ErrPending:            {503, "refresh_pending", true},
		authflow.ErrProvider:           {503, "idp_unavailable", true},
		authflow.ErrClient:             {503, "idp_rejected_client", true},
		authflow.ErrStore:              {503, "store_unavailable", true},
		authflow.ErrUnreadable:         {503, "record_unreadable", false},
		authflow.ErrUnknownIntegration: {404, "unknown_route", false},
	} {
		t.Run(row.code, func(t *testing.T) {
			b := start(t, nil, onConfig(func(c *Config) {
				c.ConnectURL = func(s tokenstore.Slot) string { return "https://auth.example/" + s.String() }
			}))
			b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
				return authflow.Credential{}, &authflow.Error{Reason: reason, Slot: slot, Detail: "In other words.", RetryAfter: 1200 * time.Millisecond}
			}
			res, body := b.do(t, b.request(t, "POST", "/graph/x", "body"))
			got := requireProblem(t, res, body, row.status, row.code)
			require.Equal(t, row.retryable, got.Retryable)
			require.Equal(t, "In other words.", got.Detail)
			require.Equal(t, "Microsoft_Graph", got.Integration)
			require.Equal(t, "acme", got.Org)
			if row.status == 503 {
				require.Equal(t, "2", res.Header.Get("Retry-After"))
			}
			if row.status == 424 {
				require.Equal(t, "https://auth.example/Microsoft_Graph/acme", got.ConnectURL)
			} else {
				require.Empty(t, got.ConnectURL)
			}
			require.Empty(t, res.Header.Get("X-Bifrost-Connection"))
			require.Empty(t, b.requests(), "the upstream is untouched")
			require.NotContains(t, b.logs.String(), "CANARY")
		})
	}
}

func TestAnErrorThatNobodyForesawFailsClosedAndSaysNothing(t *testing.T) {
	b := start(t, nil)
	b.broker.token = func(context.Context, tokenstore.Slot) (authflow.Credential, error) {
		return authflow.Credential{}, errors.New("CANARY-unforeseen")
	}
	res, body := b.get(t, "/graph/x")
	requireProblem(t, res, body, 503, "store_unavailable")
	require.Equal(t, "5", res.Header.Get("Retry-After"))
	require.Empty(t, b.requests())
	require.NotContains(t, b.logs.String(), "CANARY")
}

func TestFailuresBeforeTheBroker(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) {
		r.MaxBody = 3
		r.Methods = []string{"GET", "POST"}
	}))
	for name, row := range map[string]struct {
		request *http.Request
		status  int
		code    string
	}{
		"unknown route":     {b.request(t, "GET", "/nowhere", ""), 404, "unknown_route"},
		"bad request":       {b.request(t, "GET", "/graph/%2e%2e/", ""), 400, "bad_request"},
		"method":            {b.request(t, "PUT", "/graph/x", ""), 405, "method_not_allowed"},
		"no org":            {b.request(t, "GET", "/graph/x", "", "X-Org-ID: "), 400, "org_required"},
		"invalid org":       {b.request(t, "GET", "/graph/x", "", "X-Org-ID: -"), 400, "org_invalid"},
		"no key":            {b.request(t, "GET", "/graph/x", "", "Authorization: "), 401, "caller_unauthenticated"},
		"body over the cap": {b.request(t, "POST", "/graph/x", "four"), 413, "body_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			res, body := b.do(t, row.request)
			requireProblem(t, res, body, row.status, row.code)
			if row.code == "method_not_allowed" {
				require.Equal(t, []string{"GET", "POST"}, res.Header.Values("Allow"))
			}
		})
	}
	require.Empty(t, b.requests())
	require.Zero(t, b.broker.asked.Load())
}

func TestAFailureOfHEADHasNoBody(t *testing.T) {
	b := start(t, nil)
	res, body := b.do(t, b.request(t, "HEAD", "/nowhere", ""))
	require.Equal(t, 404, res.StatusCode)
	require.Equal(t, "unknown_route", res.Header.Get("X-Bifrost-Error"))
	require.Empty(t, body)
}

func TestAChunkedBodyOverTheCapIsCut(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) { r.MaxBody = 8 }))
	r := b.request(t, "POST", "/graph/x", "")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("CANARY more than eight bytes")), -1
	res, body := b.do(t, r)
	requireProblem(t, res, body, 413, "body_too_large")

	r = b.request(t, "POST", "/graph/x", "")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("eight...")), -1
	res, _ = b.do(t, r)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "eight...", b.last(t).body)
}

// upstreamAt points the route at an address where handle serves each connection.
func upstreamAt(t *testing.T, handle func(net.Conn)) change {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go handle(conn) // ends with the test's deadline or the conn
		}
	}()
	return onRoute(func(r *Route) {
		r.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: "http://" + ln.Addr().String()}, nil }
	})
}

func TestUpstreamsThatCannotBeUsed(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	secure := func(scheme string, tune func(*Route)) change {
		return func(_ *bench, _ *Config, r *Route) {
			at, _ := r.Target(tokenstore.Global)
			at.BaseURL = scheme + strings.TrimPrefix(at.BaseURL, "http")
			r.Target = func(tokenstore.Org) (Target, error) { return at, nil }
			tune(r)
		}
	}
	silent := func(c net.Conn) { <-hold; _ = c.Close() }
	saying := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096)) // an answer comes after its request
			_, _ = io.WriteString(c, text)
			_ = c.Close()
		}
	}
	for name, row := range map[string]struct {
		changes []change
		status  int
		code    string
	}{
		"nobody listens": {[]change{onRoute(func(r *Route) {
			r.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: "http://" + closed.Addr().String()}, nil }
		})}, 502, "upstream_unreachable"},
		"connection ends": {[]change{upstreamAt(t, func(c net.Conn) { _ = c.Close() })}, 502, "upstream_unreachable"},
		"no HTTP":         {[]change{upstreamAt(t, saying("CANARY what?\r\n\r\n"))}, 502, "upstream_unreachable"},
		"no TLS":          {[]change{upstreamAt(t, saying("HTTP/1.1 400 x\r\n\r\n")), secure("https", func(*Route) {})}, 502, "upstream_unreachable"},
		"TLS too slow":    {[]change{upstreamAt(t, silent), secure("https", func(r *Route) { r.DialTimeout = 50 * time.Millisecond })}, 502, "upstream_unreachable"},
		"no answer yet":   {[]change{upstreamAt(t, silent), onRoute(func(r *Route) { r.ResponseHeaderTimeout = 50 * time.Millisecond })}, 504, "upstream_timeout"},
		"endless headers": {[]change{upstreamAt(t, saying("HTTP/1.1 200 OK\r\n"+strings.Repeat("X-A: CANARY\r\n", 10_000)+"\r\n"))}, 502, "upstream_unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil, row.changes...)
			res, body := b.get(t, "/graph/x")
			got := requireProblem(t, res, body, row.status, row.code)
			require.True(t, got.Retryable)
			require.Equal(t, "org", res.Header.Get("X-Bifrost-Connection"))
			require.NotContains(t, b.logs.String(), "CANARY")
		})
	}
}

func TestACertificateNobodyVouchesForIsRefused(t *testing.T) {
	b := start(t, nil, overTLS(false))
	res, body := b.get(t, "/graph/x")
	requireProblem(t, res, body, 502, "upstream_unreachable")
	require.Empty(t, b.requests())
}

func TestASlowAnswerOverHTTP2IsATimeoutToo(t *testing.T) {
	release := make(chan struct{})
	b := start(t, func(http.ResponseWriter, *http.Request) { <-release }, overTLS(true),
		onRoute(func(r *Route) { r.ResponseHeaderTimeout = 100 * time.Millisecond }))
	t.Cleanup(func() {
		close(release)
		b.upstream.Close()
	})
	res, body := b.get(t, "/graph/x")
	requireProblem(t, res, body, 504, "upstream_timeout")
}

func TestATargetThatCannotBeMadeIsNotConnected(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) {
		r.Target = func(tokenstore.Org) (Target, error) { return Target{}, errors.New("vars.CANARY has no value") }
	}))
	res, body := b.get(t, "/graph/x")
	requireProblem(t, res, body, 424, "not_connected")
	require.Empty(t, b.requests())
}

func TestACallerWhoWentAwayIsNoFailureOfTheUpstream(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{})
	b := start(t, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(t.Context())
	r := b.request(t, "GET", "/graph/x", "").WithContext(ctx)
	go func() { // ends when the request has arrived
		<-arrived
		cancel()
	}()
	_, err := b.front.Client().Transport.RoundTrip(r)
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return strings.Contains(b.logs.String(), `"status":499`) }, 5*time.Second, 5*time.Millisecond)
}

func TestACallerWhoBreaksOffItsBodyIsNoFailureOfTheUpstream(t *testing.T) {
	b := start(t, nil)
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	_, err = io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 10")+"half")
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	require.Eventually(t, func() bool { return strings.Contains(b.logs.String(), `"status":499`) }, 5*time.Second, 5*time.Millisecond)
	_ = conn.Close()
}
