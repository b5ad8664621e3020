package proxy

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// tunnel is one WebSocket, from its admission to the end of its request: it has its place before the upstream is contacted. No
// frame is looked at. It points to no exchange: httputil's copies may end a little after the request.
type tunnel struct {
	of       *Tunnels
	route    *route
	caller   *caller
	leaf     *x509.Certificate // the verified one of the caller's connection; nil: there is none
	org      tokenstore.Org
	rest     string
	broker   Broker
	cancel   context.CancelFunc // makes httputil close the upstream's end; set before it opens
	upstream io.Closer          // nil if the upstream did not switch; set before it opens

	opened time.Time
	moved  atomic.Int64 // when the last byte came by, in nanoseconds after opened

	mu    sync.Mutex          // guards all below
	cred  authflow.Credential // that it went with; none until the upstream is asked
	conn  net.Conn            // the caller's; nil until the tunnel opens
	timer *time.Timer
	why   reason // the first that asked for its end; empty if nobody has
}

// reason is why a tunnel was closed. The set is closed.
type reason string

const (
	byPeers        reason = "peer" // the caller or the upstream ended it
	byIdle         reason = "idle"
	byLifetime     reason = "lifetime"
	byDisconnect   reason = "disconnected" // or reconnected, or the grant is dead: its credential's connection is another
	byNewRules     reason = "reload"       // the configuration would not let it open any more
	byDrain        reason = "drain"
	defaultIdle           = 10 * time.Minute
	defaultLife           = 12 * time.Hour
	defaultTunnels        = 1000
)

// http1Only is the context key of requests whose upstream connection must not speak HTTP/2: there is no 101 in it.
type http1Only struct{}

// reserve takes the tunnel's place among those of its integration.
func (x *exchange) reserve() error {
	t := &tunnel{of: x.proxy.tunnels, route: x.route, caller: x.caller, leaf: verifiedLeaf(x.r.TLS), org: x.org, rest: x.rest, broker: x.proxy.broker}
	if !t.of.add(t, x.proxy) {
		return fail(codeOverloaded, "This integration has as many WebSockets open as it may.")
	}
	x.tunnel = t
	return nil
}

// forwardTunnel hands a handshake to httputil, which copies in both directions after a 101 until either side ends.
func (x *exchange) forwardTunnel() {
	ctx, cancel := context.WithCancel(context.WithValue(x.r.Context(), http1Only{}, true))
	defer cancel()
	x.tunnel.cancel = cancel
	x.r = x.r.WithContext(ctx)
	x.serve(tunnelWriter{x.w, x.tunnel})
}

// switchProtocols is modifyResponse for a 101. One that nobody asked for would be a tunnel past every rule.
func (x *exchange) switchProtocols(res *http.Response) error {
	body, writable := res.Body.(io.ReadWriteCloser)
	if x.tunnel == nil || !writable || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		return fail(codeUnreachable, "The upstream switched to a protocol that was not asked for.")
	}
	if x.tunnel.of.review(x.tunnel); x.tunnel.unwanted() {
		return fail(codeOverloaded, "The configuration changed, or the proxy began to stop, during the handshake. Try again.")
	}
	x.status, x.byUpstream = res.StatusCode, true
	filterResponse(res.Header)
	switchedHeader(res.Header)
	x.setOwnHeaders(x.w.Header())
	x.tunnel.upstream = body
	res.Body = upstreamEnd{body, x.tunnel}
	return nil
}

// switchedHeader replaces a 101's hop-by-hop headers, which httputil leaves as they are, by ours.
func switchedHeader(h http.Header) {
	for _, value := range h["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{"Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding"} {
		h.Del(name)
	}
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
}

// endTunnel ends what forwardTunnel left, and gives the place back: the request has been reported.
func (x *exchange) endTunnel() {
	t := x.tunnel
	if t.upstream != nil {
		_ = t.upstream.Close() // httputil has closed it, unless it refused to switch
	}
	t.mu.Lock()
	opened, why := t.conn != nil, t.why
	if opened {
		t.timer.Stop()
	}
	t.mu.Unlock()
	if why == "" {
		why = byPeers
	}
	if opened {
		x.proxy.log.LogAttrs(context.Background(), slog.LevelDebug, "tunnel closed",
			slog.String("request_id", x.id), slog.String("reason", string(why)))
	}
	t.of.remove(t, opened, why)
}

// open gives the tunnel its caller's connection, and starts its limits.
func (t *tunnel) open(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opened, t.conn = time.Now(), conn
	t.timer = time.AfterFunc(min(t.route.WebSocketIdle, t.route.WebSocketLifetime), t.check)
	if t.why != "" { // during the handshake
		t.cutLocked()
	}
}

// hijacked reports whether the caller's connection is a server's no more. A nil tunnel's is.
func (t *tunnel) hijacked() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn != nil
}

// check closes the tunnel if a limit is reached, and otherwise comes again when the next one may be.
func (t *tunnel) check() {
	age := time.Since(t.opened)
	quiet := age - time.Duration(t.moved.Load())
	switch {
	case age >= t.route.WebSocketLifetime:
		t.close(byLifetime)
	case quiet >= t.route.WebSocketIdle:
		t.close(byIdle)
	default:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.timer.Reset(min(t.route.WebSocketIdle-quiet, t.route.WebSocketLifetime-age))
	}
}

// close ends the tunnel, or lets it end as soon as it opens. It never waits, and the first reason stands.
func (t *tunnel) close(why reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != "" {
		return
	}
	t.why = why
	if t.conn != nil {
		t.cutLocked()
	}
}

// cutLocked frees whichever end a copy waits for. httputil then closes both, which may take TLS a while.
func (t *tunnel) cutLocked() {
	_ = t.conn.SetDeadline(time.Unix(1, 0)) // a connection that is gone needs none
	t.cancel()
}

// went notes the credential that its request goes with.
func (t *tunnel) went(cred authflow.Credential) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cred = cred
}

// credential returns the one that its request went with last.
func (t *tunnel) credential() authflow.Credential {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cred
}

// unwanted reports whether somebody has asked for its end.
func (t *tunnel) unwanted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.why != ""
}

// live reports whether the tunnel is open and nobody has asked for its end.
func (t *tunnel) live() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conn != nil && t.why == ""
}

func (t *tunnel) count(n int) {
	if n > 0 {
		t.moved.Store(int64(time.Since(t.opened)))
	}
}

// tunnelWriter lets httputil take over the caller's connection in the tunnel's sight.
type tunnelWriter struct {
	http.ResponseWriter
	tunnel *tunnel
}

func (w tunnelWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w tunnelWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.tunnel.open(conn)
	return callerEnd{conn, rw.Reader}, rw, nil
}

// callerEnd is the caller's connection. What was sent right behind the handshake is in the server's buffer, where httputil does
// not look.
type callerEnd struct {
	net.Conn
	early *bufio.Reader
}

func (e callerEnd) Read(p []byte) (int, error) {
	if n := e.early.Buffered(); n > 0 {
		return e.early.Read(p[:min(n, len(p))])
	}
	return e.Conn.Read(p)
}

func (e callerEnd) CloseWrite() error { return closeWrite(e.Conn) }

// upstreamEnd is the connection to the upstream. All that passes either way passes here.
type upstreamEnd struct {
	io.ReadWriteCloser
	tunnel *tunnel
}

func (e upstreamEnd) Read(p []byte) (int, error) {
	n, err := e.ReadWriteCloser.Read(p)
	e.tunnel.count(n)
	return n, err
}

func (e upstreamEnd) Write(p []byte) (int, error) {
	n, err := e.ReadWriteCloser.Write(p)
	e.tunnel.count(n)
	return n, err
}

func (e upstreamEnd) CloseWrite() error { return closeWrite(e.ReadWriteCloser) }

// closeWrite ends one direction. Where that cannot be, its error ends the tunnel.
func closeWrite(conn io.Closer) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
