package main

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/config"
)

func TestKeysThatEndSoonAreTold(t *testing.T) {
	now := time.Date(2027, 1, 15, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	key := func(n byte, end time.Time) config.CallerKey {
		return config.CallerKey{SHA256: [32]byte{n}, NotAfter: end}
	}
	cfg := &config.Config{Callers: []config.Caller{
		{Name: "a", Keys: []config.CallerKey{key(1, time.Time{}), key(2, now.Add(14*day-1)), key(3, now.Add(14*day))}},
		{Name: "b", Keys: []config.CallerKey{key(4, now.Add(-1)), key(5, now)}},
	}}
	require.Equal(t, []endingKey{
		{"b", "04000000", now.Add(-1), true},
		{"b", "05000000", now, false},
		{"a", "02000000", now.Add(14*day - 1), false},
	}, endingKeys(cfg, now))
}

func TestCheckAndLogTellOfKeysThatEnd(t *testing.T) {
	ended, soon := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		old := fmt.Sprintf("not_after: %s, keys: [{key_sha256: %064x, not_after: %s}, {key_sha256: %064x}]", soon, 7, ended, 8)
		return strings.Replace(text, "key: {env: CALLER}", "key: {env: CALLER}, "+old, 1)
	})
	stdout, stderr, code := s.command(t, "check")
	require.Equal(t, 0, code, stdout)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Len(t, lines, 2)
	require.Equal(t, "note: caller workflows, key_sha256 00000000…, not_after "+ended+": "+endingKey{ended: true}.message(), lines[0])
	require.Contains(t, lines[1], "not_after "+soon+": "+endingKey{}.message())

	r := s.start(t)
	r.logged(t, endingKey{ended: true}.message())
	r.logged(t, endingKey{}.message())
	require.Contains(t, r.stderr.String(), `"caller":"workflows","key_sha256":"00000000","not_after":"`+ended+`"`)
}

// A process that ran for longer than two weeks used to say nothing: it looked at the start and at reloads alone.
func TestAKeyThatComesToItsEndIsToldOfOnce(t *testing.T) {
	watch, err := newWatch(nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(watch.close)
	synctest.Test(t, func(t *testing.T) {
		cfg := &config.Config{Callers: []config.Caller{{Name: "a", Keys: []config.CallerKey{{NotAfter: time.Now().Add(15 * 24 * time.Hour).UTC()}}}}}
		var lines strings.Builder
		p := &process{log: slog.New(slog.NewTextHandler(&lines, nil))}
		p.config.Store(cfg)
		r := &reloader{process: p, watch: watch, loaded: cfg}
		told := func() [2]int {
			require.NoError(t, r.apply(cfg, false))
			return [2]int{strings.Count(lines.String(), endingKey{}.message()), strings.Count(lines.String(), endingKey{ended: true}.message())}
		}
		require.Equal(t, [2]int{0, 0}, told())
		<-time.After(2 * 24 * time.Hour)
		require.Equal(t, [2]int{1, 0}, told())
		require.Equal(t, [2]int{1, 0}, told())
		<-time.After(14 * 24 * time.Hour)
		require.Equal(t, [2]int{1, 1}, told())
		require.Equal(t, [2]int{1, 1}, told())
	})
}
