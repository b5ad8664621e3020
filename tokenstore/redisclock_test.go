package tokenstore_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestTheClockIsComparedWithRedis(t *testing.T) {
	server := storetest.StartRedis(t)
	for name, tc := range map[string]struct {
		ours   time.Duration // how far our clock is ahead
		logged bool
		leased bool
	}{
		"clocks that agree":            {0, false, true},
		"ours a little ahead":          {1500 * time.Millisecond, false, true},
		"ours some seconds behind":     {-5 * time.Second, true, true},
		"ours far ahead":               {31 * time.Second, true, false},
		"ours far behind":              {-31 * time.Second, true, false},
		"ours back at the epoch's day": {-time.Since(time.Unix(0, 0)), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			reg, log := prometheus.NewPedanticRegistry(), &bytes.Buffer{}
			s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{
				URL: server.URL, Metrics: reg, Log: slog.New(slog.NewTextHandler(log, nil)),
			})
			s.SetClock(func() time.Time { return time.Now().Add(tc.ours) })
			for range 3 {
				lease, err := s.Acquire(t.Context(), acme, time.Minute)
				if tc.leased {
					require.NoError(t, err)
					require.NoError(t, s.Release(t.Context(), lease))
				} else {
					require.ErrorIs(t, err, tokenstore.ErrClock, "and not held by the try before")
					require.ErrorIs(t, err, tokenstore.ErrUnavailable)
					require.ErrorContains(t, err, "synchronise")
				}
			}
			require.InDelta(t, -tc.ours.Seconds(), value(t, reg, "bifrost_store_clock_offset_seconds"), 0.5)
			times := 0
			if tc.logged {
				times = 1
			}
			require.Equal(t, times, strings.Count(log.String(), "level=ERROR"), "%s", log)
		})
	}
}

// value returns the value of a series: a gauge or a counter, and the values of its labels in order.
func value(t *testing.T, reg prometheus.Gatherer, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var values []string
			for _, label := range m.GetLabel() {
				values = append(values, label.GetValue())
			}
			if family.GetName() == name && strings.Join(values, " ") == strings.Join(labels, " ") {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s %v", name, labels)
	return 0
}
