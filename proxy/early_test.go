package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// answersAtOnce is an upstream that answers as soon as it has the request's headers, and reads the body on.
func answersAtOnce(t *testing.T, answer string) change {
	return upstreamAt(t, func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		in := bufio.NewReader(conn)
		if _, err := http.ReadRequest(in); err != nil {
			return
		}
		_, _ = io.WriteString(conn, answer) // the proxy may have gone
		_, _ = io.Copy(io.Discard, in)
	})
}

// dialed is a caller's own connection.
func (b *bench) dialed(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	return conn, bufio.NewReader(conn)
}

// A caller that sends its body slowly must not have to send it all before it sees the answer.
func TestAnAnswerDoesNotWaitForTheBody(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n",
	} {
		for _, body := range []string{
			"Content-Length: 1000\r\n\r\nfirst", "Content-Length: 300000\r\n\r\nfirst", "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
		} {
			b := start(t, nil, answersAtOnce(t, answer))
			conn, answers := b.dialed(t)
			_, err := io.WriteString(conn, strings.TrimSuffix(line("POST", "/graph/x"), "\r\n")+body)
			require.NoError(t, err)
			res, err := http.ReadResponse(answers, nil)
			require.NoError(t, err)
			got, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, "early", string(got))
			if res.Close {
				_, err = io.ReadAll(answers)
				require.NoError(t, err, "the connection has not been closed")
			}
		}
	}
}

// An answer that breaks off ends the caller's connection, also while the caller still owes its body.
func TestABrokenAnswerDoesNotWaitForTheBody(t *testing.T) {
	b := start(t, nil, upstreamAt(t, func(conn net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nea") // the proxy may have gone
		_ = conn.Close()
	}))
	conn, answers := b.dialed(t)
	_, err := io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 1000")+"first")
	require.NoError(t, err)
	_, err = io.ReadAll(answers)
	require.NoError(t, err, "the connection has not been closed")
}

// The race detector sees a body's limit that is reached while the answer is being written.
func TestABodyOverTheCapDoesNotDisturbAnEarlyAnswer(t *testing.T) {
	b := start(t, nil, onRoute(func(r *Route) { r.MaxBody = 1000 }), answersAtOnce(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"))
	rest := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 2000, strings.Repeat("x", 2000))
	for range 200 {
		conn, answers := b.dialed(t)
		_, err := io.WriteString(conn, line("POST", "/graph/x", "Transfer-Encoding: chunked")+"5\r\nfirst\r\n"+rest)
		require.NoError(t, err)
		if res, err := http.ReadResponse(answers, nil); err == nil {
			require.Contains(t, []int{200, 413}, res.StatusCode)
		}
		require.NoError(t, conn.Close())
	}
}

func TestAnAnswerWithoutAStatusIsAFailureOfTheUpstream(t *testing.T) {
	for _, status := range []string{"000 None", "099 Low"} {
		b := start(t, nil, answersAtOnce(t, "HTTP/1.1 "+status+"\r\nContent-Length: 2\r\n\r\nok"))
		res, body := b.get(t, "/graph/x")
		requireProblem(t, res, body, 502, "upstream_unreachable")
	}
}

// With a body a WebSocket's handshake is a plain request: the tunnel and the body would be read from one connection.
func TestAHandshakeWithABodyOpensNoTunnel(t *testing.T) {
	for _, body := range []string{"Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"} {
		b := start(t, nil, onRoute(func(r *Route) { r.WebSocket = true }))
		conn, answers := b.dialed(t)
		_, err := io.WriteString(conn, strings.TrimSuffix(line("GET", "/graph/x", "Connection: Upgrade", "Upgrade: websocket"), "\r\n")+body)
		require.NoError(t, err)
		res, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, "abc", b.last(t).body)
		require.NotContains(t, b.last(t).Header, "Upgrade")
	}
}

// The upstream has answered and gone; the caller still sends what nobody wants any more. A connection that is closed at once is a
// reset then, and one answer in a thousand was lost to it.
func TestACallerThatStillSendsHasTimeToReadItsAnswer(t *testing.T) {
	for _, head := range []string{"Content-Length: 5\r\n\r\nearly", "Transfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n0\r\n\r\n"} {
		b := start(t, nil, answersAtOnce(t, "HTTP/1.1 200 OK\r\nConnection: close\r\n"+head))
		conn, answers := b.dialed(t)
		_, err := io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 1000000")+"first")
		require.NoError(t, err)
		res, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		got, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, "early", string(got))
		require.True(t, res.Close)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range 20 {
			<-tick.C
			_, err = io.WriteString(conn, "more")
			require.NoError(t, err, "the connection has been reset")
		}
	}
}
