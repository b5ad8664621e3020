package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var handshake = line("GET", "/graph/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: key")

const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

// websockets lets WebSockets pass, and looks often whether they still may.
func websockets(f func(*Route)) change {
	return func(b *bench, c *Config, r *Route) {
		c.Tunnels = NewTunnels(b.registry)
		c.Tunnels.askEvery = time.Millisecond
		r.WebSocket = true
		if f != nil {
			f(r)
		}
	}
}

// leavesNothing fails the test if goroutines of its are left when everything is closed.
func leavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// end is one end of a tunnel.
type end struct {
	net.Conn
	in *bufio.Reader
}

// tunnel opens one on the caller's side.
func (b *bench) tunnel(t *testing.T) end {
	t.Helper()
	conn, in := b.dialed(t)
	_, err := io.WriteString(conn, handshake)
	require.NoError(t, err)
	res, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	return end{conn, in}
}

func (e end) send(t *testing.T, text string) {
	t.Helper()
	_, err := io.WriteString(e, text)
	require.NoError(t, err)
}

func (e end) receive(t *testing.T, text string) {
	t.Helper()
	got := make([]byte, len(text))
	_, err := io.ReadFull(e.in, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// echoes shows that the tunnel is open, where the upstream is echoing.
func (e end) echoes(t *testing.T) {
	t.Helper()
	e.send(t, "hello")
	e.receive(t, "hello")
}

// ended waits for the other side's end.
func (e end) ended(t *testing.T) {
	t.Helper()
	require.NoError(t, e.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err := io.Copy(io.Discard, e.in)
	if err, ok := err.(net.Error); ok {
		require.False(t, err.Timeout(), "the tunnel is still open")
	}
}

// switching is an upstream that answers a handshake with what it is given and hands its end over.
func switching(t *testing.T, answer string) (change, <-chan end) {
	ends := make(chan end, 8)
	return upstreamAt(t, func(conn net.Conn) {
		t.Cleanup(func() { _ = conn.Close() })
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer) // the proxy may have gone
		ends <- end{conn, in}
	}), ends
}

// closedBecause waits for the end of the only tunnel: one line, counted once, and nothing left over.
func (b *bench) closedBecause(t *testing.T, why reason) {
	t.Helper()
	event := b.events(t, 1)[0]
	require.Equal(t, 101.0, event["status"])
	require.Empty(t, event["code"])
	require.Equal(t, "org", event["connection"])
	ts := b.proxy.tunnels
	require.Eventually(t, func() bool { return testutil.ToFloat64(ts.open.WithLabelValues("Microsoft_Graph")) == 0 }, 5*time.Second, time.Millisecond)
	require.Equal(t, 1.0, testutil.ToFloat64(ts.closed.WithLabelValues("Microsoft_Graph", string(why))), "closed for another reason")
	require.Equal(t, 1, testutil.CollectAndCount(ts.closed))
	require.Zero(t, testutil.ToFloat64(b.proxy.metrics.inFlight))
	require.Equal(t, 1.0, testutil.ToFloat64(b.proxy.metrics.requests.WithLabelValues("Microsoft_Graph", "101", "upstream")))
}

// upright is a tunnel of its own between two pipes.
func TestAHandshakeHoldsAPlaceUntilItIsRefused(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-release
		w.WriteHeader(http.StatusForbidden)
	}, websockets(func(r *Route) { r.MaxWebSockets = 1 }))
	for range 2 {
		refused := make(chan int, 1)
		go func() { refused <- b.raw(t, handshake).StatusCode }()
		<-arrived
		require.Equal(t, 503, b.raw(t, handshake).StatusCode)
		release <- struct{}{}
		require.Equal(t, 403, <-refused, "the upstream's word passes")
	}
	require.Zero(t, testutil.CollectAndCount(b.proxy.tunnels.closed), "none was open")
}

func TestATunnelEndsWithEitherSide(t *testing.T) {
	abrupt := func(t *testing.T, e end) {
		require.NoError(t, e.Conn.(*net.TCPConn).SetLinger(0))
		require.NoError(t, e.Close())
	}
	regular := func(t *testing.T, e end) { require.NoError(t, e.Close()) }
	for name, hangUp := range map[string]func(*testing.T, end, end) end{
		"the caller closes":     func(t *testing.T, caller, far end) end { regular(t, caller); return far },
		"the caller vanishes":   func(t *testing.T, caller, far end) end { abrupt(t, caller); return far },
		"the upstream closes":   func(t *testing.T, caller, far end) end { regular(t, far); return caller },
		"the upstream vanishes": func(t *testing.T, caller, far end) end { abrupt(t, far); return caller },
	} {
		t.Run(name, func(t *testing.T) {
			leavesNothing(t)
			upstream, ends := switching(t, switched)
			b := start(t, nil, websockets(nil), upstream)
			caller, far := b.tunnel(t), <-ends
			caller.send(t, "hello")
			far.receive(t, "hello")
			left := hangUp(t, caller, far)
			left.ended(t)
			_ = left.Close() // as who sees the end does
			b.closedBecause(t, byPeers)
		})
	}
}

func TestATunnelMayEndInOneDirectionFirst(t *testing.T) {
	upstream, ends := switching(t, switched)
	for name, order := range map[string]func(caller, far end) (first, last end){
		"the caller":   func(caller, far end) (first, last end) { return caller, far },
		"the upstream": func(caller, far end) (first, last end) { return far, caller },
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil, websockets(nil), upstream)
			first, last := order(b.tunnel(t), <-ends)
			first.send(t, "that is all")
			require.NoError(t, first.Conn.(*net.TCPConn).CloseWrite())
			got, err := io.ReadAll(last.in)
			require.NoError(t, err)
			require.Equal(t, "that is all", string(got))
			last.send(t, "and the answer")
			first.receive(t, "and the answer")
			require.NoError(t, last.Close())
			first.ended(t)
			b.closedBecause(t, byPeers)
		})
	}
}

// A caller should wait for the 101, but those that do not are many.
func TestWhatFollowsTheHandshakeAtOnceIsNotLost(t *testing.T) {
	upstream, ends := switching(t, switched+"welcome")
	b := start(t, nil, websockets(nil), upstream)
	early := strings.Repeat("early ", 100_000) // more than any buffer has
	conn, in := b.dialed(t)
	go func() { _, _ = io.WriteString(conn, handshake+early) }()
	far := <-ends
	far.receive(t, early)
	res, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	caller := end{conn, in}
	caller.receive(t, "welcome")
	caller.send(t, "late")
	far.receive(t, "late")
}

func TestTunnelsGoThroughTLSToUpstreamsThatPreferHTTP2(t *testing.T) {
	b := start(t, echoing, websockets(nil), overTLS(true))
	t.Cleanup(func() { b.upstream.Close() })
	res, _ := b.get(t, "/graph/plain")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "HTTP/2.0", b.last(t).Proto)

	b.front.Close()
	b.front = httptest.NewUnstartedServer(b.proxy)
	b.front.StartTLS()
	t.Cleanup(b.front.Close)
	conn, err := tls.Dial("tcp", b.front.Listener.Addr().String(), b.front.Client().Transport.(*http.Transport).TLSClientConfig)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	caller := end{conn, bufio.NewReader(conn)}
	caller.send(t, handshake+"early")
	answer, err := http.ReadResponse(caller.in, nil)
	require.NoError(t, err)
	require.Equal(t, 101, answer.StatusCode)
	require.Equal(t, "HTTP/1.1", b.last(t).Proto)
	caller.receive(t, "early")
	caller.echoes(t)
	require.NoError(t, conn.CloseWrite())
	caller.ended(t)
}

func TestAnUpstreamThatSwitchesUnaskedOpensNoTunnel(t *testing.T) {
	plain := line("GET", "/graph/x")
	for name, c := range map[string]struct{ request, answer string }{
		"a plain request":         {plain, switched},
		"to nothing":              {plain, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"to another protocol":     {handshake, strings.Replace(switched, "websocket", "h2c", 1)},
		"to none that it names":   {handshake, "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"without Connection":      {handshake, strings.Replace(switched, "Connection: Upgrade\r\n", "", 1)},
		"a request without token": {line("GET", "/graph/ws", "Upgrade: websocket"), switched},
	} {
		t.Run(name, func(t *testing.T) {
			upstream, ends := switching(t, c.answer+"CANARY")
			b := start(t, nil, websockets(nil), upstream)
			conn, in := b.dialed(t)
			_, err := io.WriteString(conn, c.request)
			require.NoError(t, err)
			res, err := http.ReadResponse(in, nil)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			requireProblem(t, res, string(body), 502, "upstream_unreachable")
			require.NotContains(t, string(body), "CANARY")
			(<-ends).ended(t)
			require.Equal(t, "upstream_unreachable", b.events(t, 1)[0]["code"])
		})
	}
}

func TestA101HasNoHeaderOfItsConnectionButOurs(t *testing.T) {
	upstream, _ := switching(t, "HTTP/1.1 101 Sure\r\nConnection: upgrade, X-Hop\r\nX-Hop: CANARY\r\nKeep-Alive: CANARY\r\nSet-Cookie: CANARY\r\n"+
		"Transfer-Encoding: chunked\r\nTrailer: CANARY\r\nX-Bifrost-Error: CANARY\r\nUpgrade: WebSocket\r\nSec-WebSocket-Protocol: chat\r\nX-End: to end\r\n\r\n")
	b := start(t, nil, websockets(nil), upstream)
	conn, in := b.dialed(t)
	_, err := io.WriteString(conn, handshake)
	require.NoError(t, err)
	var head []string
	for {
		text, err := in.ReadString('\n')
		require.NoError(t, err)
		if text == "\r\n" {
			break
		}
		if !strings.HasPrefix(text, "X-Request-Id: ") {
			head = append(head, strings.TrimSpace(text))
		}
	}
	require.ElementsMatch(t, []string{"HTTP/1.1 101 Sure", "Connection: Upgrade", "Upgrade: websocket", "Sec-Websocket-Protocol: chat", "X-End: to end", "X-Bifrost-Connection: org"}, head)
}

func TestHTTP10HasNoTunnels(t *testing.T) {
	b := start(t, echoing, websockets(nil))
	res := b.raw(t, strings.Replace(handshake, "HTTP/1.1", "HTTP/1.0", 1))
	require.Equal(t, 200, res.StatusCode)
	require.NotContains(t, b.last(t).Header, "Upgrade")
}

func TestARefusedTokenIsReplacedBeforeATunnelOpens(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != freshToken {
			w.WriteHeader(401)
			return
		}
		echoing(w, r)
	}, websockets(nil))
	b.renewing()
	b.tunnel(t).echoes(t)
	require.Len(t, b.requests(), 2)
}

// full is a tunnel in which nobody reads, and every copy waits for room.
// The caller is gone before it can be told that the protocol was switched.
func TestAHandshakeWhoseCallerLeftIsNoFailureOfTheUpstream(t *testing.T) {
	tunnel := &tunnel{route: &route{Route: Route{WebSocketIdle: time.Hour, WebSocketLifetime: time.Hour}}, cancel: func() {}}
	tunnel.close(byNewRules)
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	tunnel.open(near)
	_, err := near.Write([]byte("x"))
	require.Error(t, err, "it ends as soon as it opens")
	tunnel.timer.Stop()

	b := start(t, nil)
	x := newExchange(b.proxy)
	x.begin(httptest.NewRecorder(), b.request(t, "GET", "/graph/ws", ""))
	x.tunnel = tunnel
	x.handleError(nil, nil, io.ErrClosedPipe)
	require.Equal(t, codeClientGone, x.code)
	require.Equal(t, 200, x.w.(*httptest.ResponseRecorder).Code, "nothing was written")
	b.proxy.metrics.inFlight.Dec()
}
