package tokenstore_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

var acme = tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}

// Whatever befalls a Redis, every method says so within half a second, and nothing that was stored before is lost.
func TestNoFaultOfRedisIsMoreThanUnavailable(t *testing.T) {
	t.Parallel()
	for _, fault := range storetest.RedisFaults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			server := storetest.StartFaultyRedis(t)
			s := storetest.OpenRedis(t, server.URL)
			rec := storetest.Grant()
			require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))

			fault.Break(server)
			for op, do := range everyOperation(t, s, rec) {
				start := time.Now()
				err := do()
				require.Less(t, time.Since(start), time.Second, op) // 450 ms, and room for a busy machine
				switch op {
				case "acquire", "put":
					require.ErrorIs(t, err, tokenstore.ErrUnavailable, op)
				case "get", "due", "peek", "list", "ping":
					if fault.Reads {
						require.NoError(t, err, "%s is served", op)
						continue
					}
					require.ErrorIs(t, err, tokenstore.ErrUnavailable, op)
				case "save", "create": // see TestAFullRedisStartsNothingButFinishesWhatWasBegun
					if fault.Name != "full" {
						require.ErrorIs(t, err, tokenstore.ErrUnavailable, op)
						continue
					}
					require.NoError(t, err)
					if op == "save" {
						rec.Revision++
					}
				default: // has nothing to write, so that it can be answered where reads are
					if !fault.Reads {
						require.ErrorIs(t, err, tokenstore.ErrUnavailable, op)
					}
				}
			}
			fault.Mend(server)

			require.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, 15*time.Second, 10*time.Millisecond)
			got, err := s.Get(t.Context(), acme)
			require.NoError(t, err)
			if fault.Name == "hung" && got.Revision == rec.Revision+1 {
				rec.Revision++ // the server did, when it went on, what it had been sent: unavailable is not undone
			}
			require.Equal(t, rec, got)
			require.Eventually(t, func() bool { return s.Save(t.Context(), acme, rec, rec.Version()) == nil }, 15*time.Second, 10*time.Millisecond)
		})
	}
}

func TestAContextEndsACallToAHungRedis(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := s.Get(ctx, acme)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	require.Less(t, time.Since(start), 250*time.Millisecond) // go-redis alone would wait 300 ms for the reply
}

func TestAFullRedisStartsNothingButFinishesWhatWasBegun(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	require.NoError(t, behind.ConfigSet(t.Context(), "maxmemory", "1").Err())
	_, err := s.Acquire(t.Context(), acme, time.Minute)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	require.ErrorIs(t, s.Put(t.Context(), "id", nil, time.Minute), tokenstore.ErrUnavailable)
	require.NoError(t, s.Save(t.Context(), acme, rec, rec.Version()), "a rotated token must be stored")
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, rec, got)
}

// An emptied Redis would make every org look as if it had never connected: its requests would use the global connection.
func TestAnEmptiedRedisIsUnavailableNotEmpty(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))

	require.NoError(t, behind.FlushAll(t.Context()).Err())
	for op, err := range everyOperation(t, s, rec) {
		require.ErrorIs(t, err(), tokenstore.ErrUnavailable, op)
	}
	require.Empty(t, behind.Keys(t.Context(), "*").Val(), "nothing is written into it")

	anew := storetest.OpenRedis(t, server.URL) // another replica restarts and begins anew
	require.NotEqual(t, s.ID(), anew.ID())
	for op, err := range everyOperation(t, s, rec) {
		require.ErrorIs(t, err(), tokenstore.ErrUnavailable, op)
	}
	_, err := anew.Get(t.Context(), acme)
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
}

// everyOperation names a call of each method that tells of an unavailable store.
func everyOperation(t *testing.T, s *tokenstore.Redis, rec *tokenstore.Record) map[string]func() error {
	ctx := t.Context()
	lease := tokenstore.Lease{Slot: acme, Owner: "owner", Fence: 1}
	return map[string]func() error{
		"get":  func() error { _, err := s.Get(ctx, acme); return err },
		"save": func() error { next := *rec; return s.Save(ctx, acme, &next, rec.Version()) },
		"create": func() error {
			return s.Save(ctx, tokenstore.Slot{Integration: "a", Org: "b"}, storetest.Grant(), tokenstore.Version{})
		},
		"delete":  func() error { return s.Delete(ctx, acme, tokenstore.Version{Grant: "other"}) },
		"due":     func() error { _, err := s.Due(ctx, time.Now(), 1); return err },
		"acquire": func() error { _, err := s.Acquire(ctx, acme, time.Minute); return err },
		"renew":   func() error { _, err := s.Renew(ctx, lease, time.Minute); return err },
		"release": func() error { return s.Release(ctx, lease) },
		"put":     func() error { return s.Put(ctx, "id", nil, time.Minute) },
		"take":    func() error { _, err := s.Take(ctx, "id"); return err },
		"peek":    func() error { _, err := s.Peek(ctx, "id"); return err },
		"ping":    func() error { return s.Ping(ctx) },
		"list": func() error {
			for _, entry := range s.List(ctx, "") {
				return entry.Err
			}
			return nil
		},
	}
}

func TestAnEvictedRecordIsUnreadableNotGone(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}))
	require.EqualValues(t, 1, behind.Del(t.Context(), tokenstore.RedisRow(acme)).Val())
	_, err := s.Get(t.Context(), acme)
	require.ErrorIs(t, err, tokenstore.ErrUnreadable)
	for slot, entry := range s.List(t.Context(), "") {
		require.Equal(t, acme, slot)
		require.ErrorIs(t, entry.Err, tokenstore.ErrUnreadable)
	}
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}), "a new grant may take its place")
}

func TestAKeyOfAnotherTypeIsUnreadable(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}))
	require.NoError(t, behind.Set(t.Context(), tokenstore.RedisRow(acme), "x", 0).Err())
	_, err := s.Get(t.Context(), acme)
	require.ErrorIs(t, err, tokenstore.ErrUnreadable)
	require.ErrorIs(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}), tokenstore.ErrUnreadable)
	require.Equal(t, "x", behind.Get(t.Context(), tokenstore.RedisRow(acme)).Val())
}

// go-redis repeats a command whose reply was lost. The repetition used to report a conflict, or a lease held by another, where
// the first try had succeeded.
func TestALostReplyIsRecognisedAsOurOwnSuccess(t *testing.T) {
	server := storetest.StartRedis(t)
	proxy := startLossyProxy(t, server.Addr)
	s, behind := storetest.OpenRedis(t, "redis://"+proxy.addr), direct(t, server)
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{})) // the script is known now
	lease, err := s.Acquire(t.Context(), acme, time.Minute)
	require.NoError(t, err)
	require.NoError(t, s.Release(t.Context(), lease))

	proxy.loseReply.Store(true)
	require.NoError(t, s.Save(t.Context(), acme, rec, rec.Version()))
	require.False(t, proxy.loseReply.Load(), "the reply was lost")
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, rec, got)

	proxy.loseReply.Store(true)
	again, err := s.Acquire(t.Context(), acme, time.Minute)
	require.NoError(t, err)
	require.False(t, proxy.loseReply.Load())
	require.Greater(t, again.Fence, lease.Fence)
	require.NoError(t, s.Release(t.Context(), again))
	require.Empty(t, behind.Keys(t.Context(), "*:l:*").Val(), "no lease is left over")

	proxy.loseReply.Store(true)
	require.NoError(t, s.Delete(t.Context(), acme, rec.Version()))
	require.False(t, proxy.loseReply.Load())
}

func TestScriptsThatTheServerForgotAreSentAgain(t *testing.T) {
	server := storetest.StartRedis(t)
	s, behind := storetest.OpenRedis(t, server.URL), direct(t, server)
	rec := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	require.NoError(t, behind.ScriptFlush(t.Context()).Err())
	require.NoError(t, s.Save(t.Context(), acme, rec, rec.Version()))
}

// direct is a client that goes round the store.
func direct(t *testing.T, server *storetest.RedisServer) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// lossyProxy passes bytes on to a server; told to, it breaks the connection instead of passing on the next reply.
type lossyProxy struct {
	addr      string
	loseReply atomic.Bool
}

func startLossyProxy(t *testing.T, to string) *lossyProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &lossyProxy{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			wg.Go(func() {
				_, _ = io.Copy(server, client)
				_ = server.Close()
			})
			wg.Go(func() {
				defer func() { _ = client.Close() }()
				buf := make([]byte, 64<<10)
				for {
					n, err := server.Read(buf)
					if err != nil || p.loseReply.CompareAndSwap(true, false) {
						return
					}
					if _, err := client.Write(buf[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { require.NoError(t, l.Close()); wg.Wait() })
	return p
}
