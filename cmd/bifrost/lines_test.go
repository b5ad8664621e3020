package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever a record holds, its line is slog's own.
func TestLinesAreThoseOfSlog(t *testing.T) {
	at := time.Date(2026, 11, 26, 8, 5, 0, 120_000_000, time.UTC)
	for name, attrs := range map[string][]slog.Attr{
		"nothing": nil,
		"a request": {
			slog.String("request_id", "ABC"), slog.String("org", ""), slog.Int("status", 200), slog.String("code", "client_gone"),
			slog.Float64("duration", 0.000209123), slog.Float64("long", 43200.5),
		},
		"quotes":          {slog.String("method", `GE"T\`)},
		"control bytes":   {slog.String("a", "line\nline\x00\x7f")},
		"other alphabets": {slog.String("a", "é"), slog.String("b", "\xff")},
		"HTML":            {slog.String("a", "<a&b>")},
		"odd keys":        {slog.String("a\"b", "x")},
		"tiny and huge":   {slog.Float64("a", 1e-7), slog.Float64("b", 1e21)},
		"zero and less":   {slog.Float64("a", 0), slog.Float64("b", -1.5), slog.Int("c", math.MinInt64)},
		"infinity":        {slog.Float64("a", math.Inf(1))},
		"other kinds":     {slog.Bool("a", true), slog.Duration("b", time.Second), slog.Time("c", at), slog.Any("d", []int{1})},
		"a group":         {slog.Group("g", slog.Int("a", 1))},
		"an empty one":    {{}, slog.Int("a", 1)},
	} {
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, slog.LevelInfo + 1, slog.LevelError + 4} {
			for _, message := range []string{"request", `a "word"`} {
				r := slog.NewRecord(at, level, message, 0)
				r.AddAttrs(attrs...)
				var want, got bytes.Buffer
				require.NoError(t, slog.NewJSONHandler(&want, nil).Handle(context.Background(), r))
				require.NoError(t, lines{slog.NewJSONHandler(&got, nil), &got}.Handle(context.Background(), r))
				require.Equal(t, want.String(), got.String(), name)
			}
		}
	}
}

func TestALinesTimeIsOptionalAndLocal(t *testing.T) {
	for _, at := range []time.Time{{}, time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))} {
		r := slog.NewRecord(at, slog.LevelInfo, "request", 0)
		var want, got bytes.Buffer
		require.NoError(t, slog.NewJSONHandler(&want, nil).Handle(context.Background(), r))
		require.NoError(t, lines{slog.NewJSONHandler(&got, nil), &got}.Handle(context.Background(), r))
		require.Equal(t, want.String(), got.String())
	}
}

func BenchmarkLines(b *testing.B) {
	plain := slog.NewJSONHandler(io.Discard, nil)
	for name, h := range map[string]slog.Handler{"slog": plain, "lines": lines{plain, io.Discard}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := slog.NewRecord(time.Now(), slog.LevelInfo, "request", 0)
				r.AddAttrs(slog.String("request_id", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"), slog.String("method", "GET"), slog.String("route", "/graph"),
					slog.String("integration", "Microsoft_Graph"), slog.String("org", "acme"), slog.String("connection", "org"),
					slog.Int("status", 200), slog.String("code", ""), slog.Float64("duration", 0.000209))
				_ = h.Handle(context.Background(), r)
			}
		})
	}
}
