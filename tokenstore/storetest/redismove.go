package storetest

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// MoveShard moves the cluster slot of a key, which must exist, to another node, as a resharding does.
func (c *RedisCluster) MoveShard(t testing.TB, key string) {
	t.Helper()
	c.BeginMove(t, key)()
}

// BeginMove moves every key of a key's cluster slot to another node, one by one. The slot stays the first node's, which answers
// ASK for each of them, and TRYAGAIN is the answer to what needs some of them and a key that is not there, until finish is called.
func (c *RedisCluster) BeginMove(t testing.TB, key string) (finish func()) {
	t.Helper()
	ctx := t.Context()
	nodes, ids := c.clients(t)
	from := slices.IndexFunc(nodes, func(node *redis.Client) bool { return node.Exists(ctx, key).Val() == 1 })
	require.NotEqual(t, -1, from, "no node has %s", key)
	to := (from + 1) % len(nodes)
	number := nodes[from].ClusterKeySlot(ctx, key).Val()
	set := func(node int, state string, id int) {
		require.NoError(t, nodes[node].Do(ctx, "CLUSTER", "SETSLOT", number, state, ids[id]).Err())
	}
	set(to, "IMPORTING", from)
	set(from, "MIGRATING", to)
	host, port, err := net.SplitHostPort(c.Nodes[to].Addr)
	require.NoError(t, err)
	moveKeys := func() {
		for {
			keys := nodes[from].ClusterGetKeysInSlot(ctx, int(number), 1).Val()
			if len(keys) == 0 {
				return
			}
			require.NoError(t, nodes[from].Migrate(ctx, host, port, keys[0], 0, 5*time.Second).Err())
		}
	}
	moveKeys()
	return func() {
		t.Helper()
		moveKeys()
		set(to, "NODE", to)
		set(from, "NODE", to)
		for i := range nodes {
			set(i, "NODE", to)
		}
		// The next move must not begin before all know of this one: of two owners with one epoch, one deletes its keys.
		require.Eventually(t, func() bool { return agree(ctx, nodes) }, 10*time.Second, 5*time.Millisecond)
	}
}

// Rows returns the key of every connection's row.
func (c *RedisCluster) Rows(t testing.TB) (keys []string) {
	t.Helper()
	nodes, _ := c.clients(t)
	for _, node := range nodes {
		found, err := node.Keys(t.Context(), "bifrost:*:r:*").Result()
		require.NoError(t, err)
		keys = append(keys, found...)
	}
	return keys
}

// clients returns a client of each node, and the nodes' ids.
func (c *RedisCluster) clients(t testing.TB) (nodes []*redis.Client, ids []string) {
	t.Helper()
	for _, server := range c.Nodes {
		node := redis.NewClient(&redis.Options{Addr: server.Addr})
		t.Cleanup(func() { require.NoError(t, node.Close()) })
		id, err := node.ClusterMyID(t.Context()).Result()
		require.NoError(t, err)
		nodes, ids = append(nodes, node), append(ids, id)
	}
	return nodes, ids
}

// agree says whether all nodes know the same owner, of the same epoch, of every slot.
func agree(ctx context.Context, nodes []*redis.Client) bool {
	var first string
	for i, node := range nodes {
		var epochs []string
		for line := range strings.Lines(node.ClusterNodes(ctx).Val()) {
			fields := strings.Fields(line)
			epochs = append(epochs, fields[0]+" "+fields[6]+" "+strings.Join(fields[8:], " "))
		}
		slices.Sort(epochs)
		seen := strings.Join(epochs, "\n")
		if i == 0 {
			first = seen
		}
		if seen != first {
			return false
		}
	}
	return true
}
