package e2e_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// commandMeter counts what a Redis executes, the commands inside scripts included.
type commandMeter struct {
	t      *testing.T
	client *redis.Client
	last   map[string]int
}

func newCommandMeter(t *testing.T, server *storetest.RedisServer) *commandMeter {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = client.Close() }) // nothing is left to lose
	return &commandMeter{t: t, client: client}
}

// since returns what was executed since the last call, in all and by command. A restart begins anew.
func (m *commandMeter) since() (int, map[string]int) {
	m.t.Helper()
	text, err := m.client.Info(m.t.Context(), "commandstats").Result()
	require.NoError(m.t, err)
	now, more, all := map[string]int{}, map[string]int{}, 0
	for line := range strings.Lines(text) {
		name, stats, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || name == "info" {
			continue
		}
		count, _, _ := strings.Cut(stats, ",")
		now[name], err = strconv.Atoi(count)
		require.NoError(m.t, err, line)
	}
	for name, n := range now {
		if n -= m.last[name]; n > 0 {
			more[name] = n
			all += n
		}
	}
	m.last = now
	return all, more
}

// busiest names the commands executed most.
func busiest(by map[string]int) []string {
	names := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return by[b] - by[a] })
	for i, name := range names {
		names[i] = name + " " + strconv.Itoa(by[name])
	}
	return names[:min(len(names), 8)]
}
