package tokenstore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// rekeyable is what both stores are in these tests.
type rekeyable interface {
	tokenstore.Backend
	io.Closer
	Rekey(ctx context.Context) (tokenstore.Rekeyed, error)
	SetKeys(ctx context.Context, keys *tokenstore.Keyring) error
	MissingKeys(ctx context.Context) (map[string]tokenstore.KeyUse, error)
}

// opener opens one and the same store with any ring of keys.
type opener func(t *testing.T, keys ...string) (rekeyable, error)

// onBoth runs a test with a file and with a real Redis.
func onBoth(t *testing.T, test func(t *testing.T, open opener)) {
	t.Run("file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "bifrost.db")
		test(t, func(t *testing.T, keys ...string) (rekeyable, error) {
			return tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: ring(t, keys...)})
		})
	})
	t.Run("redis", func(t *testing.T) {
		server := storetest.StartRedis(t)
		require.NoError(t, restrict(t.Context(), direct(t, server), "+scan"))
		url := "redis://bifrost:CANARY@" + server.Addr
		test(t, func(t *testing.T, keys ...string) (rekeyable, error) {
			return tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: url, Keys: ring(t, keys...)})
		})
	})
}

// ring returns a ring of keys made from their ids, newest first.
func ring(t *testing.T, ids ...string) *tokenstore.Keyring {
	t.Helper()
	var keys []tokenstore.Key
	for _, id := range ids {
		keys = append(keys, tokenstore.Key{ID: id, Bytes: []byte((id + strings.Repeat("-", 32))[:32])})
	}
	made, err := tokenstore.NewKeyring(keys...)
	require.NoError(t, err)
	return made
}

// with opens the store with keys, and closes it after do.
func (open opener) with(t *testing.T, keys []string, do func(s rekeyable)) {
	t.Helper()
	s, err := open(t, keys...)
	require.NoError(t, err)
	do(s)
	require.NoError(t, s.Close())
}

// refused says that the store does not open with keys.
func (open opener) refused(t *testing.T, keys ...string) {
	t.Helper()
	_, err := open(t, keys...)
	require.ErrorIs(t, err, tokenstore.ErrWrongKey)
}

func orgSlot(org string) tokenstore.Slot {
	return tokenstore.Slot{Integration: "Microsoft_Graph", Org: tokenstore.Org(org)}
}

// backend returns what the engine below a store can be reached through.
func backend(s rekeyable) tokenstore.Backend {
	if f, is := s.(*tokenstore.File); is {
		return f.Backend
	}
	return s.(*tokenstore.Redis).Backend
}

func TestRekeyLetsTheOldKeyGo(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		kept := storetest.Grant()
		open.with(t, []string{"old"}, func(s rekeyable) {
			require.NoError(t, s.Save(t.Context(), orgSlot("acme"), kept, tokenstore.Version{}))
			gone := storetest.Grant()
			require.NoError(t, s.Save(t.Context(), orgSlot("gone"), gone, tokenstore.Version{}))
			require.NoError(t, s.Delete(t.Context(), orgSlot("gone"), gone.Version()))
		})
		open.refused(t, "new")
		open.with(t, []string{"new", "old"}, func(s rekeyable) {
			ctx, stop := context.WithCancel(t.Context())
			var told atomic.Int32
			var watching sync.WaitGroup
			watching.Go(func() {
				s.Watch(ctx, func(slot tokenstore.Slot) {
					if slot != (tokenstore.Slot{}) {
						told.Add(1)
					}
				})
			})
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.Equal(t, tokenstore.Rekeyed{Key: "new", Resealed: 2, Complete: true}, done)
			again, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.Equal(t, tokenstore.Rekeyed{Key: "new", Current: 2, Complete: true}, again)
			stop()
			watching.Wait()
			require.Zero(t, told.Load(), "nobody has to read again")
		})
		open.refused(t, "old")
		open.with(t, []string{"new"}, func(s rekeyable) {
			got, err := s.Get(t.Context(), orgSlot("acme"))
			require.NoError(t, err)
			require.Equal(t, kept, got, "its version as well")
			_, err = s.Get(t.Context(), orgSlot("gone"))
			require.ErrorIs(t, err, tokenstore.ErrDeleted)
		})
	})
}

// Sign-ins live for hours and connect links for weeks: both outlive the old key.
func TestRekeyTakesShelvedValuesAlong(t *testing.T) {
	const values = 300
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			for n := range values {
				require.NoError(t, s.Put(t.Context(), fmt.Sprint("link-", n), []byte(fmt.Sprint(n)), time.Hour))
			}
		})
		open.with(t, []string{"new", "old"}, func(s rekeyable) {
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.Equal(t, tokenstore.Rekeyed{Key: "new", Complete: true}, done)
		})
		open.with(t, []string{"new"}, func(s rekeyable) {
			for n := range values {
				value, err := s.Take(t.Context(), fmt.Sprint("link-", n))
				require.NoError(t, err)
				require.Equal(t, fmt.Sprint(n), string(value))
				_, err = s.Take(t.Context(), fmt.Sprint("link-", n))
				require.ErrorIs(t, err, tokenstore.ErrNotFound, "it can be spent once, as before")
			}
		})
	})
}

func TestRekeyLeavesNothingInRedisForEver(t *testing.T) {
	server := storetest.StartRedis(t)
	before, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: server.URL, Keys: ring(t, "old")})
	require.NoError(t, err)
	require.NoError(t, before.Put(t.Context(), "link", nil, time.Hour))
	require.NoError(t, before.Close())
	s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: server.URL, Keys: ring(t, "new", "old")})
	_, err = s.Rekey(t.Context())
	require.NoError(t, err)
	keys := direct(t, server).Keys(t.Context(), "bifrost:{*}:s:*").Val()
	require.Len(t, keys, 1)
	require.Positive(t, direct(t, server).PTTL(t.Context(), keys[0]).Val())
}

func clusterIsRekeyed(t *testing.T, cluster *storetest.RedisCluster) {
	const orgs = 40
	for _, node := range cluster.Nodes { // a damaged record that another test left would hold the old key back
		require.NoError(t, direct(t, node).FlushAll(t.Context()).Err())
	}
	old, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: cluster.URL, Keys: storetest.Keys(t)})
	require.NoError(t, err)
	for n := range orgs {
		rec := storetest.Grant()
		require.NoError(t, old.Save(t.Context(), orgSlot(fmt.Sprint("rekey-", n)), rec, tokenstore.Version{}))
		if n%2 == 0 {
			require.NoError(t, old.Delete(t.Context(), orgSlot(fmt.Sprint("rekey-", n)), rec.Version()))
		}
	}
	require.NoError(t, old.Close())
	newest := tokenstore.Key{ID: "newest", Bytes: []byte(strings.Repeat("n", 32))}
	both, err := tokenstore.NewKeyring(newest, storetest.Key())
	require.NoError(t, err)
	s, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: cluster.URL, Keys: both})
	require.NoError(t, err)
	done, err := s.Rekey(t.Context())
	require.NoError(t, err)
	require.True(t, done.Complete)
	require.GreaterOrEqual(t, done.Resealed, orgs)
	require.NoError(t, s.Close())
	back, err := tokenstore.NewKeyring(storetest.Key(), newest) // for the tests that follow
	require.NoError(t, err)
	again, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: cluster.URL, Keys: back})
	require.NoError(t, err)
	done, err = again.Rekey(t.Context())
	require.NoError(t, err)
	require.True(t, done.Complete)
	require.GreaterOrEqual(t, done.Resealed, orgs)
	require.NoError(t, again.Close())
}

func TestRekeyLeavesAloneWhatDoesNotOpen(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			for _, org := range []string{"acme", "damaged"} {
				require.NoError(t, s.Save(t.Context(), orgSlot(org), storetest.Grant(), tokenstore.Version{}))
			}
		})
		open.with(t, []string{"lost", "old"}, func(s rekeyable) {
			require.NoError(t, s.Save(t.Context(), orgSlot("under-another"), storetest.Grant(), tokenstore.Version{}))
			sealed, err := tokenstore.Sealed(t.Context(), backend(s), orgSlot("damaged"))
			require.NoError(t, err)
			flipped := append([]byte{}, sealed...)
			flipped[len(flipped)-1] ^= 1
			require.NoError(t, tokenstore.Reseal(t.Context(), backend(s), orgSlot("damaged"), sealed, flipped))
		})
		open.with(t, []string{"new", "old"}, func(s rekeyable) {
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.Equal(t, tokenstore.Rekeyed{Key: "new", Resealed: 1, Unreadable: 2}, done)
		})
		open.refused(t, "new") // the old key may still be what repairs the damaged record
		open.with(t, []string{"new", "old"}, func(s rekeyable) {
			_, err := s.Get(t.Context(), orgSlot("damaged"))
			unreadable, is := errors.AsType[*tokenstore.UnreadableError](err)
			require.True(t, is)
			require.NoError(t, s.Delete(t.Context(), orgSlot("damaged"), unreadable.Stored))
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.Equal(t, tokenstore.Rekeyed{Key: "new", Current: 2, Unreadable: 1, Complete: true}, done, "an unknown key holds nothing back")
		})
		open.with(t, []string{"new", "lost"}, func(s rekeyable) {
			_, err := s.Get(t.Context(), orgSlot("under-another"))
			require.NoError(t, err, "it was left as it was")
		})
	})
}

func TestResealingComparesTheSealedBytes(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			rec := storetest.Grant()
			require.NoError(t, s.Save(t.Context(), orgSlot("acme"), rec, tokenstore.Version{}))
			stale, err := tokenstore.Sealed(t.Context(), backend(s), orgSlot("acme"))
			require.NoError(t, err)
			require.NoError(t, s.Save(t.Context(), orgSlot("acme"), rec, rec.Version()))
			require.ErrorIs(t, tokenstore.Reseal(t.Context(), backend(s), orgSlot("acme"), stale, stale), tokenstore.ErrConflict)
			require.ErrorIs(t, tokenstore.Reseal(t.Context(), backend(s), orgSlot("never"), stale, stale), tokenstore.ErrConflict)
			got, err := s.Get(t.Context(), orgSlot("acme"))
			require.NoError(t, err)
			require.Equal(t, rec, got)
		})
	})
}

// TestRekeyDuringLiveTraffic walks over records that are refreshed, made and deleted all the time.
func TestRekeyDuringLiveTraffic(t *testing.T) {
	const orgs, writers = 500, 4
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			for n := range orgs {
				require.NoError(t, s.Save(t.Context(), orgSlot(fmt.Sprint(n)), storetest.Grant(), tokenstore.Version{}))
			}
		})
		var saves atomic.Int64
		open.with(t, []string{"new", "old"}, func(s rekeyable) {
			ctx, stop := context.WithCancel(t.Context())
			var working sync.WaitGroup
			for w := range writers {
				working.Go(func() {
					for n := w; ctx.Err() == nil; n = (n + writers) % orgs {
						if err := refreshOnce(t.Context(), s, orgSlot(fmt.Sprint(n))); err != nil {
							t.Errorf("a refresh during the rekey: %v", err)
							return
						}
						saves.Add(1)
					}
				})
			}
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.True(t, done.Complete)
			require.Zero(t, done.Unreadable)
			require.Equal(t, orgs, done.Resealed+done.Current)
			stop()
			working.Wait()
			t.Logf("%d saves during the rekey: %+v", saves.Load(), done)
		})
		require.NotZero(t, saves.Load())
		open.with(t, []string{"new"}, func(s rekeyable) {
			var generations int64
			for slot, entry := range s.List(t.Context(), "") {
				require.NoError(t, entry.Err, slot)
				generations += entry.Record.Generation - 1
			}
			require.Equal(t, saves.Load(), generations, "no save was undone")
		})
	})
}

// refreshOnce does what a refresh does to the store, but once.
func refreshOnce(ctx context.Context, s tokenstore.Store, slot tokenstore.Slot) error {
	rec, err := s.Get(ctx, slot)
	if err != nil {
		return err
	}
	next := *rec
	next.Generation++
	next.Write = rand.Text()
	return s.Save(ctx, slot, &next, rec.Version())
}
