package main

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

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
