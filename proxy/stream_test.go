package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestServerSentEventsArriveAsTheyAreSent(t *testing.T) {
	next := make(chan struct{})
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", "/graph/events", ""))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	events := bufio.NewReader(res.Body)
	for i := range 3 {
		got, err := events.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("data: %d\n", i), got)
		_, _ = events.ReadString('\n')
		next <- struct{}{}
	}
}

// Stock proxies cut a few such answers in a thousand: golang/go#40747. Alone, full duplex panics: golang/go#68560.
func TestAnswersThatComeBeforeTheBodyAreNotCut(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const answer = 8 << 10
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(answer))
		_, _ = io.WriteString(w, strings.Repeat("a", answer))
	}, onConfig(func(c *Config) { c.LogRequests = false }))
	body := strings.Repeat("b", 20<<10)
	client := &http.Transport{MaxIdleConnsPerHost: 8}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				r := b.request(t, "POST", "/graph/x", body)
				if i%2 == 1 {
					r.ContentLength = -1
				}
				res, err := client.RoundTrip(r)
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				got, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if err != nil || res.StatusCode != 200 || len(got) != answer {
					t.Errorf("request %d: %d, %d bytes, %v", i, res.StatusCode, len(got), err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.front.Close()
	b.upstream.Close()
	require.NoError(t, b.proxy.Close())
}

// What is left of a body must not be taken for the next request.
func TestABodyLeftUnreadEndsTheConnection(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 10000000")+"first bytes")
	require.NoError(t, err)
	answers := bufio.NewReader(conn)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, 204, res.StatusCode)
	require.True(t, res.Close)
	_, _ = io.WriteString(conn, line("GET", "/graph/smuggled"))
	rest, _ := io.ReadAll(answers)
	require.Empty(t, rest)
	require.Len(t, b.requests(), 1)
}

func TestExpectContinueIsAnsweredOnlyWhenTheBodyIsWanted(t *testing.T) {
	b := start(t, nil)
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	answers := bufio.NewReader(conn)
	_, err = io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 4", "Expect: 100-continue"))
	require.NoError(t, err)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, 100, res.StatusCode)
	_, err = io.WriteString(conn, "body")
	require.NoError(t, err)
	res, err = http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "body", b.last(t).body)

	b.broker.token = func(context.Context, tokenstore.Slot) (authflow.Credential, error) {
		return authflow.Credential{}, authflow.ErrStore
	}
	for target, status := range map[string]int{"/nowhere": 404, "/graph/x": 503} {
		res = b.raw(t, line("POST", target, "Content-Length: 4", "Expect: 100-continue"))
		require.Equal(t, status, res.StatusCode)
		require.True(t, res.Close, "nobody knows whether the body will come")
	}
	for _, event := range b.events(t, 3) {
		require.Less(t, event["duration"], drainTime.Seconds()/2, "and nobody waits for it")
	}
}

func TestAShortRestOfABodyIsReadAndTheConnectionGoesOn(t *testing.T) {
	b := start(t, nil)
	b.broker.token = func(context.Context, tokenstore.Slot) (authflow.Credential, error) {
		return authflow.Credential{}, authflow.ErrStore
	}
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	answers := bufio.NewReader(conn)
	for range 20 {
		_, err = io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 100000")+"first bytes")
		require.NoError(t, err)
		res, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, 503, res.StatusCode)
		require.False(t, res.Close)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		_, err = io.WriteString(conn, strings.Repeat("x", 100_000-len("first bytes")))
		require.NoError(t, err)
	}
}

func TestInformationalAnswersAndTrailersStayHere(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "CANARY=early")
		w.Header().Set("Link", "</x>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Del("Set-Cookie")
		w.Header().Set("Trailer", "X-Announced")
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "body")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Announced", "CANARY")
		w.Header().Set(http.TrailerPrefix+"Set-Cookie", "CANARY")
		if len(r.Trailer) > 0 {
			w.Header().Set(http.TrailerPrefix+"Request-Trailer", "came")
		}
	})
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, line("POST", "/graph/x", "Transfer-Encoding: chunked", "Trailer: X-Org-Id", "TE: trailers", "Connection: close")+
		"1\r\nx\r\n0\r\nX-Org-Id: evil\r\n\r\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n"), "%s", answer)
	require.Contains(t, string(answer), "X-Bifrost-Connection: org")
	require.Contains(t, string(answer), "body")
	require.NotContains(t, string(answer), "CANARY")
	require.NotContains(t, string(answer), "Request-Trailer")
	require.NotContains(t, string(answer), "Trailer")
}

// echoing switches to a protocol that sends everything back.
func echoing(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		_, _ = io.WriteString(w, "plain")
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", r.Header.Get("Sec-WebSocket-Key"))
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

func TestWebSocketsPassWhereTheyAreAllowed(t *testing.T) {
	b := start(t, echoing, onRoute(func(r *Route) { r.WebSocket = true }))
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, line("GET", "/graph/ws", "Connection: Upgrade", "Upgrade: WebSocket", "Sec-WebSocket-Key: key", "Sec-Fetch-Mode: websocket", "Origin: http://x"))
	require.NoError(t, err)
	answers := bufio.NewReader(conn)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	require.Equal(t, "key", res.Header.Get("Sec-WebSocket-Accept"))
	require.Equal(t, "org", res.Header.Get("X-Bifrost-Connection"))
	_, err = io.WriteString(conn, "hello")
	require.NoError(t, err)
	echo := make([]byte, 5)
	_, err = io.ReadFull(answers, echo)
	require.NoError(t, err)
	require.Equal(t, "hello", string(echo))
	got := b.last(t)
	require.Equal(t, tokenOf("acme"), got.Header.Get("Authorization"))
	require.NotContains(t, got.Header, "Sec-Fetch-Mode")
	require.NotContains(t, got.Header, "Origin")
}

func TestAnUpgradeThatConnectionDoesNotNameIsNone(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) { r.WebSocket = true }))
	for _, request := range []string{
		line("GET", "/graph/ws", "Upgrade: websocket", "Sec-WebSocket-Key: key"),
		line("GET", "/graph/ws", "Connection: keep-alive, Upgraded", "Upgrade: websocket", "Sec-WebSocket-Key: key"),
		strings.Replace(line("GET", "/graph/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: key"), "HTTP/1.1", "HTTP/1.0", 1), // RFC 9110 section 7.8
	} {
		require.Equal(t, 200, b.raw(t, request).StatusCode)
		for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Key"} {
			require.NotContains(t, b.last(t).Header, name)
		}
	}
}

func TestASwitchThatNobodyAskedForIsNoAnswer(t *testing.T) {
	ended := make(chan struct{})
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return // the answer is then another
		}
		defer func() { ended <- struct{}{} }()
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("X-Wanted")+"\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn) // until the proxy closes it
	}, onRoute(func(r *Route) { r.WebSocket = true }))
	for _, request := range []string{
		line("GET", "/graph/x", "X-Wanted: websocket"),
		line("GET", "/graph/x", "X-Wanted: h2c", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: key"),
	} {
		require.Equal(t, "upstream_unreachable", b.raw(t, request).Header.Get("X-Bifrost-Error"))
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			require.Fail(t, "the upstream's connection is left open")
		}
	}
}

func TestWebSocketsGoOnAsPlainRequestsElsewhere(t *testing.T) {
	b := start(t, echoing)
	res := b.raw(t, line("GET", "/graph/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: key"))
	require.Equal(t, 200, res.StatusCode)
	got := b.last(t)
	for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Key"} {
		require.NotContains(t, got.Header, name)
	}
}

// overTLS serves the upstream over TLS and HTTP/2; trusted says whether the proxy knows its certificate.
func overTLS(trusted bool) change {
	return func(b *bench, _ *Config, r *Route) {
		secure := httptest.NewUnstartedServer(b.upstream.Config.Handler)
		secure.EnableHTTP2 = true
		secure.StartTLS()
		b.upstream.Close()
		b.upstream = secure
		if trusted {
			r.RootCAs = secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		}
		r.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: secure.URL}, nil }
	}
}

func TestUpstreamsSpeakHTTP2WhereTheyCan(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != freshToken {
			w.WriteHeader(401)
			return
		}
		w.Header().Set(http.TrailerPrefix+"Set-Cookie", "CANARY")
		_, _ = fmt.Fprintf(w, "%s %s", r.Proto, body)
	}, overTLS(true))
	t.Cleanup(func() { b.upstream.Close() })
	b.renewing()
	res := b.raw(t, line("POST", "/graph/a%2Fb//{c}?$x=%zz&;", "Content-Length: 11")+"CANARY-body")
	require.Equal(t, 200, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "HTTP/2.0 CANARY-body", string(body))
	require.Empty(t, res.Trailer)
	require.Equal(t, "/a%2Fb//{c}?$x=%zz&;", b.last(t).RequestURI)
}
