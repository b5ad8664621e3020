package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const standstill = 300 * time.Millisecond

// pair returns both ends of a connection, of which the first is limited to standstill.
func pair(t *testing.T) (limited *steadyConn, peer *net.TCPConn) {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := &steady{Listener: socket}
	l.limit.Store(int64(standstill))
	t.Cleanup(func() { _ = l.Close() })
	other, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Close() })
	conn, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*steadyConn), other.(*net.TCPConn)
}

// fill writes until an error, and tells which and after how long without a byte written.
func fill(w io.Writer) (time.Duration, error) {
	block := make([]byte, 32<<10)
	for {
		began := time.Now()
		if _, err := w.Write(block); err != nil {
			return time.Since(began), err
		}
	}
}

func TestAPeerThatTakesNothingLosesItsConnection(t *testing.T) {
	conn, _ := pair(t)
	for range 2 { // after an hour of idleness the limit is the same
		waited, err := fill(conn)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.GreaterOrEqual(t, waited, standstill)
		require.Less(t, waited, 3*standstill)
		conn.until.Add(-int64(time.Hour))
	}
}

// To the writer a slow reader behind a large buffer stands still for a long time: a Write that waits goes on when a third of the
// 4 MiB that the system allows is free, while the reader opens its window some 300 KB at a time.
func TestAPeerThatTakesLittleAtATimeKeepsItsConnection(t *testing.T) {
	conn, peer := pair(t)
	written := make(chan error, 1)
	go func() { // ends with the connection
		_, err := conn.Write(make([]byte, 64<<20))
		written <- err
	}()
	tick := time.NewTicker(standstill / 10)
	defer tick.Stop()
	for end := time.Now().Add(6 * standstill); time.Now().Before(end); <-tick.C {
		_, err := io.CopyN(io.Discard, peer, 64<<10)
		require.NoError(t, err)
		require.Empty(t, written, "the connection has been cut")
	}
	require.ErrorIs(t, <-written, os.ErrDeadlineExceeded, "and now it reads no more")
}

func TestADeadlineOfTheServersOwnStands(t *testing.T) {
	conn, _ := pair(t)
	conn.limit.Store(int64(time.Hour))
	began := time.Now()
	require.NoError(t, conn.SetDeadline(began.Add(standstill)))
	_, err := fill(conn)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Less(t, time.Since(began), patience)

	require.NoError(t, conn.SetWriteDeadline(time.Time{}))
	conn.limit.Store(int64(standstill))
	waited, err := fill(conn)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.GreaterOrEqual(t, waited, standstill, "the limit is back")
}

func TestALimitThatIsTakenAwayLeavesNoDeadline(t *testing.T) {
	conn, peer := pair(t)
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	conn.limit.Store(0)
	go func() { // ends with the connection
		<-time.After(4 * standstill)
		_, _ = io.Copy(io.Discard, peer)
	}()
	_, err = conn.Write(make([]byte, 32<<20))
	require.NoError(t, err)
}

// net/http's server closes so while a caller still sends: a reset would destroy the answer on its way.
func TestAConnectionCanBeHalfClosed(t *testing.T) {
	conn, peer := pair(t)
	require.NoError(t, conn.CloseWrite())
	_, err := io.ReadAll(peer)
	require.NoError(t, err)
	_, err = peer.Write([]byte("x"))
	require.NoError(t, err)
	got := make([]byte, 1)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
}

func TestACallerThatDoesNotReadIsLetGo(t *testing.T) {
	ended := make(chan error, 1)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, strings.Repeat("x", 64<<20))
		ended <- err
	}))
	t.Cleanup(upstream.Close)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		return strings.Replace(upstreamOf(upstream.URL)(s, text), "proxy: {", "proxy: {timeouts: {write_idle: 300ms}, ", 1)
	})
	r := s.start(t)
	s.connect(t, "acme")
	conn, err := net.Dial("tcp", s.proxy)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "GET /graph/x HTTP/1.1\r\nHost: "+s.proxy+"\r\nX-Bifrost-Key: "+callerKey+"\r\nX-Org-ID: acme\r\n\r\n")
	require.NoError(t, err)
	require.Error(t, <-ended, "the upstream sends on to nobody")
	require.Eventually(t, func() bool {
		return strings.Contains(r.stderr.String(), `"status":200,"code":"client_gone"`)
	}, patience, pollTime)
	require.Eventually(t, func() bool {
		_, metrics := fetch(t, "http://"+s.ops+"/metrics")
		return strings.Contains(metrics, "\nbifrost_requests_in_flight 0\n")
	}, patience, pollTime)
}

// BenchmarkSteady reports what a short answer costs over a limited connection: a Write, and net/http's clearing of a deadline.
// The two are measured in turns, so that neither has the quieter machine.
func BenchmarkSteady(b *testing.B) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	defer func() { _ = socket.Close() }()
	peer, err := net.Dial("tcp", socket.Addr().String())
	require.NoError(b, err)
	go func() { _, _ = io.Copy(io.Discard, peer) }() // ends with the connection
	plain, err := socket.Accept()
	require.NoError(b, err)
	defer func() { _ = plain.Close() }()
	l := &steady{}
	l.limit.Store(int64(time.Minute))
	answer := make([]byte, 400)
	took := func(conn net.Conn) time.Duration {
		began := time.Now()
		for range 100 {
			_, _ = conn.Write(answer)
			_ = conn.SetWriteDeadline(time.Time{})
		}
		return time.Since(began)
	}
	var limited, bare time.Duration
	conn := &steadyConn{Conn: plain, limit: &l.limit}
	for b.Loop() {
		limited += took(conn)
		bare += took(plain)
	}
	b.ReportMetric(float64(limited)/float64(bare), "x-plain")
}
