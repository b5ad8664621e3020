package storetest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// RedisSentinel is a real primary with a replica, watched by one Sentinel that fails over within a few seconds.
type RedisSentinel struct {
	Primary, Replica, Sentinel *RedisServer
	URL                        string
}

// StartSentinel starts the three and waits until the Sentinel knows the replica.
func StartSentinel(t testing.TB) *RedisSentinel {
	t.Helper()
	primary := StartRedis(t)
	host, port, err := net.SplitHostPort(primary.Addr)
	require.NoError(t, err)
	replica := StartReplica(t, primary)

	sentinel := newRedisServer(t)
	_, own, err := net.SplitHostPort(sentinel.Addr)
	require.NoError(t, err)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `bind 127.0.0.1
port %s
dir %s
sentinel monitor main %s %s 1
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 3000
`, own, filepath.Dir(config), host, port), 0o600))
	sentinel.args = []string{config, "--sentinel"}
	sentinel.start()

	client := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	defer func() { require.NoError(t, client.Close()) }()
	require.Eventually(t, func() bool {
		replicas, err := client.Replicas(t.Context(), "main").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	}, 30*time.Second, 20*time.Millisecond)
	return &RedisSentinel{Primary: primary, Replica: replica, Sentinel: sentinel, URL: sentinel.URL + "?master_name=main"}
}

// Master asks the Sentinel which server is the primary now, host:port.
func (s *RedisSentinel) Master(t testing.TB) string {
	t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: s.Sentinel.Addr})
	defer func() { require.NoError(t, client.Close()) }()
	addr, err := client.GetMasterAddrByName(t.Context(), "main").Result()
	require.NoError(t, err)
	return net.JoinHostPort(addr[0], addr[1])
}

// StartReplica starts a replica of a primary; it has not necessarily synchronised yet.
func StartReplica(t testing.TB, primary *RedisServer) *RedisServer {
	t.Helper()
	host, port, err := net.SplitHostPort(primary.Addr)
	require.NoError(t, err)
	return StartRedis(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
}
