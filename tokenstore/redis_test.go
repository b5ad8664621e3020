package tokenstore_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestRedisKeepsTheContract(t *testing.T) {
	server := storetest.StartRedis(t)
	behind := direct(t, server)
	require.NoError(t, restrict(t.Context(), behind))
	url := "redis://bifrost:CANARY@" + server.Addr
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		require.NoError(t, behind.FlushAll(t.Context()).Err())
		return opened(t, storetest.OpenRedis(t, url), behind, func(do func(*redis.Client) error) error { return do(behind) })
	})
}

// TestCluster starts one cluster for all: that takes longer than the tests.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := storetest.StartCluster(t)
	t.Run("keeps the contract", func(t *testing.T) { clusterKeepsTheContract(t, cluster) })
	t.Run("counts what no replica has", func(t *testing.T) { clusterCountsUnreplicatedWrites(t, cluster) })
	t.Run("is rekeyed on every node", func(t *testing.T) { clusterIsRekeyed(t, cluster) })
	t.Run("keeps serving a shard that moves", func(t *testing.T) { clusterServesAMovingShard(t, cluster) })
	t.Run("gives a lease once a shard has moved", func(t *testing.T) { clusterGivesALeaseOnceAShardHasMoved(t, cluster) })
	t.Run("serves load while shards move", func(t *testing.T) { clusterServesLoadWhileShardsMove(t, cluster) })
	t.Run("is unavailable without a node and comes back", func(t *testing.T) { clusterLosesANode(t, cluster) })
}

func clusterKeepsTheContract(t *testing.T, cluster *storetest.RedisCluster) {
	var addrs []string
	for _, node := range cluster.Nodes {
		addrs = append(addrs, node.Addr)
	}
	behind := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	t.Cleanup(func() { require.NoError(t, behind.Close()) })
	each := func(do func(*redis.Client) error) error {
		var mu sync.Mutex // do is not called concurrently
		return behind.ForEachMaster(context.Background(), func(_ context.Context, node *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			return do(node)
		})
	}
	require.NoError(t, each(func(node *redis.Client) error { return restrict(t.Context(), node, "+cluster|slots", "+command") }))
	url := strings.Replace(cluster.URL, "redis://", "redis://bifrost:CANARY@", 1)
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		require.NoError(t, each(func(node *redis.Client) error { return node.FlushAll(t.Context()).Err() }))
		return opened(t, storetest.OpenRedis(t, url), behind, each)
	})
}

// restrict makes a user with no rights but those that NewRedis tells operators to give.
func restrict(ctx context.Context, node *redis.Client, more ...any) error {
	rights := []any{"ACL", "SETUSER", "bifrost", "on", ">CANARY", "~bifrost:*", "&bifrost:*", "-@all",
		"+get", "+set", "+del", "+exists", "+hset", "+hmget", "+pexpire", "+persist", "+zadd", "+zrem", "+zscore", "+zrange",
		"+zrangebyscore", "+eval", "+evalsha", "+time", "+info", "+publish", "+subscribe", "+ping"}
	return node.Do(ctx, append(rights, more...)...).Err()
}

// opened is a store with the suite's way round it; each calls for every server.
func opened(t *testing.T, s *tokenstore.Redis, behind redis.Cmdable, each func(func(*redis.Client) error) error) storetest.Opened {
	return storetest.Opened{
		Backend: s,
		Row: func(slot tokenstore.Slot) (fields [][]byte) {
			values, err := behind.HMGet(t.Context(), tokenstore.RedisRow(slot), tokenstore.RowFields...).Result()
			require.NoError(t, err)
			for _, value := range values {
				fields = append(fields, []byte(value.(string)))
			}
			return fields
		},
		SetRow: func(slot tokenstore.Slot, fields [][]byte) {
			var pairs []any
			for i, field := range fields {
				pairs = append(pairs, tokenstore.RowFields[i], field)
			}
			require.NoError(t, behind.HSet(t.Context(), tokenstore.RedisRow(slot), pairs...).Err())
		},
		Dump: func() (all []byte) {
			require.NoError(t, each(func(node *redis.Client) error {
				keys, err := node.Keys(t.Context(), "*").Result()
				for _, key := range keys {
					all = append(append(all, key...), dumpKey(t, node, key)...)
				}
				return err
			}))
			return all
		},
	}
}

// dumpKey returns what a key holds, in the clear: DUMP would compress it.
func dumpKey(t *testing.T, node *redis.Client, key string) (all []byte) {
	t.Helper()
	kind, err := node.Type(t.Context(), key).Result()
	require.NoError(t, err)
	var values []string
	switch kind {
	case "string":
		values = []string{node.Get(t.Context(), key).Val()}
	case "zset":
		values = node.ZRange(t.Context(), key, 0, -1).Val()
	case "hash":
		for field, value := range node.HGetAll(t.Context(), key).Val() {
			values = append(values, field, value)
		}
	case "none": // it has expired
	default:
		t.Fatalf("%s is a %s", key, kind)
	}
	for _, value := range values {
		all = append(all, value...)
	}
	return all
}
