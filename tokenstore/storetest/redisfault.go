package storetest

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// RedisFault is a way in which a Redis stops being of use, and back.
type RedisFault struct {
	Name  string
	Reads bool // what only reads is answered
	Break func(*RedisServer)
	Mend  func(*RedisServer) // what was stored before is there again soon
}

// StartFaultyRedis starts a server that any RedisFault can befall, and that loses nothing meanwhile.
func StartFaultyRedis(t testing.TB) *RedisServer {
	t.Helper()
	return StartRedis(t, "--appendfsync", "always", "--enable-protected-configs", "yes", "--enable-debug-command", "yes",
		"--loading-process-events-interval-bytes", "1024")
}

// RedisFaults returns all that we know.
func RedisFaults() []RedisFault {
	return []RedisFault{
		{"down", false, (*RedisServer).Kill, (*RedisServer).Restart},
		{"hung", false, (*RedisServer).Pause, (*RedisServer).Resume},
		{"full", true, does("CONFIG", "SET", "maxmemory", "1"), does("CONFIG", "SET", "maxmemory", "0")},
		{"read-only", true, does("REPLICAOF", "127.0.0.1", "1"), does("REPLICAOF", "NO", "ONE")},
		{"without a disk", true, breakDisk, does("CONFIG", "SET", "save", "")},
		{"closed to us", false, lockOut, does("CONFIG", "SET", "requirepass", "")},
		{"loading", false, reload, does("CONFIG", "SET", "key-load-delay", "0")},
	}
}

// faultPassword is the one of a server that lockOut has closed.
const faultPassword = "CANARY-locked-out"

// do runs commands as an administrator, who knows the password if there is one.
func (s *RedisServer) do(run func(ctx context.Context, c *redis.Client) error) {
	s.t.Helper()
	for _, password := range []string{"", faultPassword} {
		c := redis.NewClient(&redis.Options{Addr: s.Addr, Password: password, PoolSize: 1})
		err := c.ConfigGet(s.t.Context(), "port").Err() // is answered whatever else is wrong
		if err == nil {
			err = run(s.t.Context(), c)
			_ = c.Close() // nothing is in flight
			require.NoError(s.t, err)
			return
		}
		_ = c.Close()
	}
	s.t.Fatal("the server lets nobody in")
}

// does is one command.
func does(args ...any) func(*RedisServer) {
	return func(s *RedisServer) {
		s.do(func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, args...).Err() })
	}
}

// breakDisk lets a snapshot fail, as a full disk does: the server then takes no writes (MISCONF).
func breakDisk(s *RedisServer) {
	s.do(func(ctx context.Context, c *redis.Client) error {
		if err := c.ConfigSet(ctx, "save", "3600 1000000").Err(); err != nil {
			return err
		}
		if err := os.RemoveAll(c.ConfigGet(ctx, "dir").Val()["dir"]); err != nil {
			return err
		}
		if err := c.BgSave(ctx).Err(); err != nil {
			return err
		}
		require.Eventually(s.t, func() bool {
			return strings.Contains(c.Info(ctx, "persistence").Val(), "rdb_last_bgsave_status:err")
		}, 10*time.Second, 5*time.Millisecond)
		return nil
	})
}

// lockOut sets a password that nobody knows and ends every connection (NOAUTH).
func lockOut(s *RedisServer) {
	s.do(func(ctx context.Context, c *redis.Client) error {
		if err := c.ConfigSet(ctx, "requirepass", faultPassword).Err(); err != nil {
			return err
		}
		return c.Do(ctx, "CLIENT", "KILL", "SKIPME", "yes").Err()
	})
}

// reload lets the server load all of its data again, for ten seconds or so (LOADING).
func reload(s *RedisServer) {
	s.t.Helper()
	s.do(func(ctx context.Context, c *redis.Client) error {
		perKey := 10 * time.Second / time.Duration(max(1, c.DBSize(ctx).Val()))
		return c.ConfigSet(ctx, "key-load-delay", strconv.FormatInt(perKey.Microseconds(), 10)).Err()
	})
	done := make(chan struct{})
	go func() { // ends with the server at the latest
		defer close(done)
		c := redis.NewClient(&redis.Options{Addr: s.Addr, ReadTimeout: time.Minute, MaxRetries: -1})
		defer func() { _ = c.Close() }() // nothing is in flight
		_ = c.Do(context.Background(), "DEBUG", "RELOAD").Err()
	}()
	s.t.Cleanup(func() { s.Kill(); <-done })
	require.Eventually(s.t, func() bool { return !answersPing(s.Addr) }, 10*time.Second, time.Millisecond, "it loads")
}
