package main

import (
	"bufio"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// TestServerComplaintsHoldNoSecret: what a handler was working on when it panicked is in the value of the panic, and net/http
// prints that.
func TestServerComplaintsHoldNoSecret(t *testing.T) {
	out := new(output)
	log, _ := newLog(out, config.Log{Level: "debug"})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic("CANARY-value\nCANARY-second-line")
	}))
	srv.Config.ErrorLog = serverLog(log, "proxy")
	srv.StartTLS()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err == nil {
		resp.Body.Close()
	}
	require.Error(t, err)
	require.Eventually(t, func() bool { return out.contains(`"msg":"a handler panicked","listener":"proxy"`) }, patience, pollTime)
	require.True(t, out.contains("logging_test.go"), "the stack tells where")
	require.False(t, out.contains("CANARY"))

	_, err = http.Get(srv.URL) // does not know the certificate
	require.Error(t, err)
	require.Eventually(t, func() bool { return out.contains(`"level":"DEBUG","msg":"a TLS handshake ended early"`) }, patience, pollTime)
}

// What an upstream sends beyond its answer is some org's data, and net/http's transport prints it.
func TestALibrarysComplaintQuotesNoUpstream(t *testing.T) {
	out := new(output)
	l, _ := newLog(out, config.Log{})
	before := slog.Default()
	t.Cleanup(func() {
		log.SetOutput(os.Stderr)
		slog.SetDefault(before)
		redis.SetLogger(redisLog{before})
	})
	takeOverLogs(l)

	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer upstream.Close()
	go func() { // ends with the answer
		conn, err := upstream.Accept()
		if err != nil {
			return
		}
		_, _ = http.ReadRequest(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokCANARY-of-another-org")
	}()
	resp, err := http.Get("http://" + upstream.Addr().String())
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	require.Eventually(t, func() bool { return out.contains("Unsolicited response") }, patience, pollTime)
	require.False(t, out.contains("CANARY"))
}

func TestLogFormatAndLevelAreConfigured(t *testing.T) {
	out := new(output)
	log, level := newLog(out, config.Log{Level: "warn", Format: "text"})
	log.Info("quiet")
	log.Warn("loud")
	level.Set(slog.LevelInfo)
	log.Info("later")
	require.False(t, out.contains("quiet"))
	require.True(t, out.contains("level=WARN msg=loud"))
	require.True(t, out.contains("msg=later"))
}
