package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// echoUpstream switches to a protocol that sends everything back, and tells on closed that the other side has ended it.
func echoUpstream(t *testing.T) (url string, closed chan struct{}) {
	t.Helper()
	closed = make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n") // Flush tells
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw) // until either side ends
		closed <- struct{}{}
	}))
	t.Cleanup(server.Close)
	return server.URL, closed
}

// tunnelled starts bifrost with a WebSocket upstream, and opens a tunnel.
func tunnelled(t *testing.T, edit func(string) string) (*running, *tunnel, chan struct{}) {
	t.Helper()
	url, closed := echoUpstream(t)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		text = upstreamOf(url)(s, strings.Replace(text, "scopes: read", "scopes: read\n    websocket: true", 1))
		if edit != nil {
			text = edit(text)
		}
		return text
	})
	r := s.start(t)
	s.connect(t, "acme")
	return r, s.openTunnel(t), closed
}

// tunnel is a caller's end.
type tunnel struct {
	net.Conn
	in *bufio.Reader
}

func (s *setup) openTunnel(t *testing.T) *tunnel {
	t.Helper()
	conn, err := net.Dial("tcp", s.proxy)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "GET /graph/ws HTTP/1.1\r\nHost: bifrost.test\r\nX-Bifrost-Key: "+callerKey+"\r\nX-Org-ID: acme\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	require.NoError(t, err)
	tun := &tunnel{conn, bufio.NewReader(conn)}
	res, err := http.ReadResponse(tun.in, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	tun.echoes(t)
	return tun
}

func (tun *tunnel) echoes(t *testing.T) {
	t.Helper()
	_, err := io.WriteString(tun, "hello")
	require.NoError(t, err)
	echo := make([]byte, 5)
	_, err = io.ReadFull(tun.in, echo)
	require.NoError(t, err)
	require.Equal(t, "hello", string(echo))
}

func (tun *tunnel) ended(t *testing.T) {
	t.Helper()
	_, err := io.Copy(io.Discard, tun.in)
	if err, ok := err.(net.Error); ok {
		require.False(t, err.Timeout(), "the tunnel is still open")
	}
}

func TestSIGTERMWaitsForTunnels(t *testing.T) {
	r, tun, closed := tunnelled(t, nil)
	r.signal(t, sigTerm)
	require.Eventually(t, func() bool { status, _ := fetch(t, "http://"+r.proxy+"/"); return status == 0 }, patience, pollTime)
	tun.echoes(t)
	status, _ := fetch(t, "http://"+r.auth+"/integrations")
	require.NotZero(t, status, "the auth listener closes after the tunnels")
	require.NoError(t, tun.Close())
	<-closed
	require.Equal(t, 0, r.exit(t))
	require.NotContains(t, r.stderr.String(), "tunnels were cut")
}

func TestDrainTimeoutCutsTunnels(t *testing.T) {
	r, tun, closed := tunnelled(t, func(text string) string {
		return strings.Replace(text, "proxy: {", "proxy: {drain_timeout: 500ms, ", 1)
	})
	r.signal(t, sigTerm)
	tun.ended(t)
	<-closed
	require.Equal(t, 0, r.exit(t))
	log := r.stderr.String()
	require.Contains(t, log, `"msg":"tunnels were cut at the end of proxy.drain_timeout","tunnels":1`)
	require.NotContains(t, log, "requests were cut")
	require.Contains(t, log, `"status":101`)
	require.Less(t, strings.Index(log, `"status":101`), strings.Index(log, "tunnels were cut"), "the request has ended by then")
	require.Contains(t, log, "bifrost has stopped")
}

func TestASecondSignalDoesNotWaitForTunnels(t *testing.T) {
	r, tun, _ := tunnelled(t, nil)
	r.signal(t, sigTerm)
	require.Eventually(t, func() bool { status, _ := fetch(t, "http://"+r.proxy+"/"); return status == 0 }, patience, pollTime)
	tun.echoes(t)
	r.signal(t, sigTerm)
	require.NotZero(t, r.exit(t))
	tun.ended(t)
}

func TestTunnelsEndWithTheirConnection(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *running){
		"disconnect": func(t *testing.T, r *running) {
			_, stderr, code := r.command(t, "disconnect", "graph", "acme")
			require.Zero(t, code, stderr)
		},
		"reconnect": func(t *testing.T, r *running) { r.connect(t, "acme") },
		"reload without websocket": func(t *testing.T, r *running) {
			r.rewrite(t, func(text string) string { return strings.Replace(text, "    websocket: true\n", "", 1) })
			r.signal(t, syscall.SIGHUP)
		},
		"reload without the integration": func(t *testing.T, r *running) {
			r.rewrite(t, func(text string) string { return strings.Replace(text, "  graph:\n", "  other:\n", 1) })
			r.signal(t, syscall.SIGHUP)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, tun, closed := tunnelled(t, nil)
			end(t, r)
			began := time.Now()
			tun.ended(t)
			require.Less(t, time.Since(began), 5*time.Second)
			<-closed
		})
	}
}

// A refresh gives the connection another token, and a reload that changes nothing of the tunnel's another Proxy.
func TestTunnelsGoOnAcrossRefreshAndReload(t *testing.T) {
	r, tun, _ := tunnelled(t, nil)
	_, stderr, code := r.command(t, "refresh", "graph", "acme")
	require.Zero(t, code, stderr)
	r.rewrite(t, func(text string) string { return strings.Replace(text, "route: /graph", "route: /directory", 1) })
	r.signal(t, syscall.SIGHUP)
	r.logged(t, "the configuration was reloaded")
	require.Never(t, func() bool { return r.metric(t, `bifrost_tunnels{integration="graph"}`) != "1" }, 3*time.Second, 100*time.Millisecond)
	tun.echoes(t)
	require.NoError(t, tun.Close())
	require.Eventually(t, func() bool { return r.metric(t, `bifrost_tunnels{integration="graph"}`) == "0" }, patience, pollTime)
}

// rewrite changes the configuration file.
func (s *setup) rewrite(t *testing.T, edit func(string) string) {
	t.Helper()
	text, err := os.ReadFile(s.config)
	require.NoError(t, err)
	edited := edit(string(text))
	require.NotEqual(t, string(text), edited)
	s.write(t, edited)
}
