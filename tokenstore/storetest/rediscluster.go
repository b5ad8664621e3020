package storetest

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// RedisCluster is a real Redis Cluster of three masters without replicas.
type RedisCluster struct {
	Nodes []*RedisServer
	URL   string
}

// StartCluster starts three servers, shares the slots out and waits until all agree on it.
func StartCluster(t testing.TB) *RedisCluster {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not installed: run `make test`, which installs what the tests need")
	}
	c := &RedisCluster{}
	var buses []string
	for range 3 {
		bus := freePort(t)
		c.Nodes = append(c.Nodes, StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000"))
		buses = append(buses, bus)
	}
	ctx := t.Context()
	ranges := [][2]int{{0, 5460}, {5461, 10922}, {10923, 16383}}
	for i, node := range c.Nodes {
		client := redis.NewClient(&redis.Options{Addr: node.Addr})
		defer func() { require.NoError(t, client.Close()) }()
		require.NoError(t, client.ClusterAddSlotsRange(ctx, ranges[i][0], ranges[i][1]).Err())
		require.NoError(t, client.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		for j, other := range c.Nodes[:i] {
			host, port, err := net.SplitHostPort(other.Addr)
			require.NoError(t, err)
			require.NoError(t, client.Do(ctx, "CLUSTER", "MEET", host, port, buses[j]).Err())
		}
	}
	require.Eventually(t, func() bool { return c.agrees(ctx) }, 20*time.Second, 20*time.Millisecond)
	c.URL = c.Nodes[0].URL + "?cluster=true&addr=" + c.Nodes[1].Addr + "&addr=" + c.Nodes[2].Addr
	return c
}

// agrees says whether every node sees three masters that serve all slots.
func (c *RedisCluster) agrees(ctx context.Context) bool {
	for _, node := range c.Nodes {
		client := redis.NewClient(&redis.Options{Addr: node.Addr})
		state, err := client.ClusterInfo(ctx).Result()
		_ = client.Close() // nothing is in flight
		if err != nil || !strings.Contains(state, "cluster_state:ok") || !strings.Contains(state, "cluster_size:3") ||
			!strings.Contains(state, "cluster_slots_ok:16384") {
			return false
		}
	}
	return true
}
