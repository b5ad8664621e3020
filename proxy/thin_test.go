package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// sayingRaw is an upstream that answers with these bytes and closes.
func sayingRaw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(conn, answer)
		_ = conn.Close()
	}
}

// What Connection says decides what httputil sees of a request. It must not matter to anybody.
func TestWhatHttputilDoesNotSeeIsFilteredAllTheSame(t *testing.T) {
	b := start(t, sayingRaw("HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"+
		"Proxy-Authenticate: Basic\r\nTe: x\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-Stays: 1\r\nX-Stays: 2\r\nContent-Length: 2\r\n\r\nok"))
	ask := func(header ...string) (sent, answered http.Header) {
		header = append(header, "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Upgrade: websocket", "TE: trailers", "Trailer: X-T",
			"X-Request-ID: job-1", "Accept: a/b", "X-Own: 1", "Prefer: x")
		res := b.raw(t, line("GET", "/graph/x?q=%20;", header...))
		require.Equal(t, 200, res.StatusCode)
		res.Header.Del("Date")
		return b.last(t).Header, res.Header
	}
	wantSent, wantAnswered := ask("Connection: keep-alive, X-Nothing")
	require.NotContains(t, wantSent, "User-Agent")
	require.Equal(t, []string{"1", "2"}, wantAnswered["X-Stays"])
	for _, header := range [][]string{nil, {"Connection: keep-alive"}, {"Connection: Keep-Alive"}} {
		sent, answered := ask(header...)
		require.Equal(t, wantSent, sent)
		require.Equal(t, wantAnswered, answered)
	}
}

func TestAnAnswerThatEndsEarlyIsNotTakenForWhole(t *testing.T) {
	for name, answer := range map[string]string{
		"counted": "Content-Length: 100000\r\n\r\n" + strings.Repeat("begun", 10_000),
		"chunked": "Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
		"events":  "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, sayingRaw("HTTP/1.1 200 OK\r\n"+answer))
			_, err := io.ReadAll(b.send(t, b.request(t, "GET", "/graph/x", "")).Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		})
	}
}
