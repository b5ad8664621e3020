package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/bifrost-proxy/bifrost/config"
)

// newLog returns the log on w and its level, which a reload may change.
func newLog(w io.Writer, cfg config.Log) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.Set(logLevel(cfg))
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Format == "text" {
		return slog.New(slog.NewTextHandler(w, opts)), level
	}
	return slog.New(lines{slog.NewJSONHandler(w, opts), w}), level
}

func logLevel(cfg config.Log) slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.Level)) // config has checked it; the zero value is info
	return level
}

// serverLog returns what http.Server wants for its own complaints. They are about connections, not requests: the text after
// the first line, and the value of a panic, may hold what a handler was working on, and are left out.
func serverLog(l *slog.Logger, listener string) *log.Logger {
	return log.New(complaints{l, listener}, "", 0)
}

type complaints struct {
	log      *slog.Logger
	listener string
}

func (c complaints) Write(p []byte) (int, error) {
	ctx, first := context.Background(), firstLine(p)
	switch {
	case bytes.Contains(p, []byte("panic serving")):
		c.log.Error("a handler panicked", "listener", c.listener, "stack", string(stackOf(p)))
	case bytes.HasPrefix(p, []byte("http: TLS handshake error")):
		c.log.Log(ctx, slog.LevelDebug, "a TLS handshake ended early", "listener", c.listener, "error", first)
	default:
		c.log.Log(ctx, slog.LevelWarn, "the HTTP server complains", "listener", c.listener, "error", first)
	}
	return len(p), nil
}

// firstLine returns at most 200 bytes of the first line.
func firstLine(p []byte) string {
	line, _, _ := bytes.Cut(p, []byte("\n"))
	return string(line[:min(len(line), 200)])
}

// stackOf returns the goroutine's stack without the value of the panic in front of it.
func stackOf(p []byte) []byte {
	_, stack, _ := bytes.Cut(p, []byte("\ngoroutine "))
	return stack
}

// takeOverLogs leads here what libraries print by themselves.
func takeOverLogs(l *slog.Logger) {
	slog.SetDefault(l)
	log.SetOutput(libraryLog{l}) // in place of slog's own, which takes all of the text
	redis.SetLogger(redisLog{l})
}

// libraryLog takes what is printed with package log. net/http's transport quotes what an upstream has sent beyond its answer: from the
// first quote on the text is left out.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Write(p []byte) (int, error) {
	text, _, _ := bytes.Cut(p, []byte{'"'})
	l.log.Info("a library says", "text", firstLine(text))
	return len(p), nil
}

// redisLog takes what the Redis client would print to stderr in a form of its own. What matters of it comes back as errors.
type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "the Redis client says", "text", firstLine(fmt.Appendf(nil, format, args...)))
	}
}
