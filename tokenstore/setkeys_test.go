package tokenstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// onBothOpen runs a test with a store of each kind that is open with the key "old" and holds a record of acme.
func onBothOpen(t *testing.T, test func(t *testing.T, s rekeyable)) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			require.NoError(t, s.Save(t.Context(), orgSlot("acme"), storetest.Grant(), tokenstore.Version{}))
			test(t, s)
		})
	})
}

// sealedBy returns the id of the key that sealed an org's record.
func sealedBy(t *testing.T, s rekeyable, org string) string {
	t.Helper()
	sealed, err := tokenstore.Sealed(t.Context(), backend(s), orgSlot(org))
	require.NoError(t, err)
	return string(sealed[2 : 2+sealed[1]])
}

func TestKeysAreReplacedWithoutOpeningAnew(t *testing.T) {
	onBothOpen(t, func(t *testing.T, s rekeyable) {
		ctx := t.Context()
		require.NoError(t, s.Put(ctx, "link", []byte("CANARY"), time.Hour))
		require.NoError(t, s.SetKeys(ctx, ring(t, "old", "new")), "it opens what other replicas seal")
		require.NoError(t, s.SetKeys(ctx, ring(t, "new", "old")))
		rec, err := s.Get(ctx, orgSlot("acme"))
		require.NoError(t, err)
		require.Equal(t, "old", sealedBy(t, s, "acme"))
		require.NoError(t, s.Save(ctx, orgSlot("acme"), rec, rec.Version()))
		require.Equal(t, "new", sealedBy(t, s, "acme"), "what is saved from now on")
		done, err := s.Rekey(ctx)
		require.NoError(t, err)
		require.True(t, done.Complete)
		require.Equal(t, "new", done.Key)
		require.NoError(t, s.SetKeys(ctx, ring(t, "new")))
		_, err = s.Get(ctx, orgSlot("acme"))
		require.NoError(t, err)
		value, err := s.Take(ctx, "link")
		require.NoError(t, err)
		require.Equal(t, "CANARY", string(value))
		require.NoError(t, s.SetKeys(ctx, ring(t, "new")), "the same again")
	})
}

func TestAKeyThatSealsWhatIsSavedNowIsKept(t *testing.T) {
	onBothOpen(t, func(t *testing.T, s rekeyable) {
		err := s.SetKeys(t.Context(), ring(t, "new"))
		require.ErrorContains(t, err, `"old" is still in use`)
		require.ErrorContains(t, err, "bifrost rekey")
		_, err = s.Get(t.Context(), orgSlot("acme"))
		require.NoError(t, err, "the ring before stays")

		require.NoError(t, s.SetKeys(t.Context(), ring(t, "new", "old")))
		_, err = s.Rekey(t.Context())
		require.NoError(t, err)
		require.NoError(t, s.SetKeys(t.Context(), ring(t, "old", "new")))
		require.ErrorContains(t, s.SetKeys(t.Context(), ring(t, "new")), `"old" is still in use, it seals what is saved now`, "though nothing is under it yet")
	})
}

// Each thing that a key has sealed keeps it in the ring by itself.
func TestAKeyIsKeptWhileItOpensAnything(t *testing.T) {
	for name, c := range map[string]struct {
		left func(t *testing.T, s rekeyable) // under "old", in a store that is rekeyed otherwise
		told string
	}{
		"a record": {func(t *testing.T, s rekeyable) {
			require.NoError(t, s.Save(t.Context(), orgSlot("late"), storetest.Grant(), tokenstore.Version{}))
		}, "1 record:"},
		"a tombstone": {func(t *testing.T, s rekeyable) {
			rec := storetest.Grant()
			require.NoError(t, s.Save(t.Context(), orgSlot("late"), rec, tokenstore.Version{}))
			require.NoError(t, s.Delete(t.Context(), orgSlot("late"), rec.Version()))
		}, "1 mark of a disconnect:"},
		"two shelved values": {func(t *testing.T, s rekeyable) {
			require.NoError(t, s.Put(t.Context(), "sign-in", nil, time.Hour))
			require.NoError(t, s.Put(t.Context(), "link", nil, time.Hour))
		}, "2 × sign-in or connect link:"},
		"an entry of a history": {func(t *testing.T, s rekeyable) {
			require.NoError(t, s.Note(t.Context(), orgSlot("late"), []byte("one")))
			require.NoError(t, s.Note(t.Context(), orgSlot("late"), []byte("damaged, and no reason")))
			sealed, err := tokenstore.SealedNotes(t.Context(), backend(s), orgSlot("late"))
			require.NoError(t, err)
			flipped := bytes.Clone(sealed[0])
			flipped[len(flipped)-1] ^= 1
			require.NoError(t, tokenstore.ReplaceNote(t.Context(), backend(s), orgSlot("late"), sealed[0], flipped))
		}, "1 entry of a history:"},
		"a damaged record": {func(t *testing.T, s rekeyable) {
			require.NoError(t, s.Save(t.Context(), orgSlot("late"), storetest.Grant(), tokenstore.Version{}))
			sealed, err := tokenstore.Sealed(t.Context(), backend(s), orgSlot("late"))
			require.NoError(t, err)
			flipped := bytes.Clone(sealed)
			flipped[len(flipped)-1] ^= 1
			require.NoError(t, tokenstore.Reseal(t.Context(), backend(s), orgSlot("late"), sealed, flipped))
		}, "1 record:"},
	} {
		t.Run(name, func(t *testing.T) {
			onBothOpen(t, func(t *testing.T, s rekeyable) {
				ctx := t.Context()
				require.NoError(t, s.SetKeys(ctx, ring(t, "new", "old")))
				_, err := s.Rekey(ctx)
				require.NoError(t, err)
				require.NoError(t, s.SetKeys(ctx, ring(t, "old", "new")))
				c.left(t, s)
				require.NoError(t, s.SetKeys(ctx, ring(t, "new", "old")))
				err = s.SetKeys(ctx, ring(t, "new"))
				require.ErrorContains(t, err, `"old" is still in use, it seals `+c.told)
				inUse, ok := errors.AsType[*tokenstore.KeyInUseError](err)
				require.True(t, ok)
				require.Equal(t, "old", inUse.ID)
				require.ErrorContains(t, err, "bifrost rekey")
				require.NoError(t, s.Save(ctx, orgSlot("other"), storetest.Grant(), tokenstore.Version{}), "the ring before stays")
			})
		})
	}
}

func TestAKeyIsKeptWhileTheCheckRecordNeedsIt(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			require.NoError(t, s.SetKeys(t.Context(), ring(t, "new", "old")))
			require.ErrorContains(t, s.SetKeys(t.Context(), ring(t, "new")), "it seals the key-check record:")
		})
	})
}

func TestARingOfOtherKeysIsRefused(t *testing.T) {
	onBothOpen(t, func(t *testing.T, s rekeyable) {
		ctx := t.Context()
		other := tokenstore.Key{ID: "old", Bytes: []byte(strings.Repeat("CANARY-x", 4))}
		changed, err := tokenstore.NewKeyring(other)
		require.NoError(t, err)
		err = s.SetKeys(ctx, changed)
		require.ErrorContains(t, err, `"old" has other bytes than before`)
		require.NotContains(t, err.Error(), "CANARY")
		renamed, err := tokenstore.NewKeyring(tokenstore.Key{ID: "renamed", Bytes: []byte(("old" + strings.Repeat("-", 32))[:32])})
		require.NoError(t, err)
		require.ErrorContains(t, s.SetKeys(ctx, renamed), `"renamed" is the one that was called "old"`)
		require.Error(t, s.SetKeys(ctx, nil))
		_, err = s.Get(ctx, orgSlot("acme"))
		require.NoError(t, err, "the ring before stays")
	})
}

func TestMissingKeysAreNamed(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			missing, err := s.MissingKeys(t.Context())
			require.NoError(t, err)
			require.Empty(t, missing)
		})
		open.with(t, []string{"lost", "old"}, func(s rekeyable) {
			require.NoError(t, s.Save(t.Context(), orgSlot("acme"), storetest.Grant(), tokenstore.Version{}))
			require.NoError(t, s.Put(t.Context(), "link", nil, time.Hour))
		})
		open.with(t, []string{"old"}, func(s rekeyable) {
			missing, err := s.MissingKeys(t.Context())
			require.NoError(t, err)
			require.Equal(t, map[string]tokenstore.KeyUse{"lost": {Records: 1, Shelved: 1}}, missing)
			require.NoError(t, s.SetKeys(t.Context(), ring(t, "new", "old")), "what was lost before holds nothing back")
		})
	})
}

func TestKeysAreNotReplacedWhileTheStoreCannotBeAsked(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: server.URL, Keys: ring(t, "old")})
	server.Pause()
	require.ErrorIs(t, s.SetKeys(t.Context(), ring(t, "new", "old")), tokenstore.ErrUnavailable)
	require.NoError(t, s.SetKeys(t.Context(), ring(t, "old")), "nothing is new")
	server.Resume()
}

// A replica that has not loaded the newest key cannot read what is sealed by it.
func TestAnotherReplicaIsWaitedFor(t *testing.T) {
	server := storetest.StartRedis(t)
	url := server.URL
	slow, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: url, Keys: ring(t, "old")})
	require.NoError(t, err)
	quick := storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: url, Keys: ring(t, "new", "old")})
	_, err = quick.Rekey(t.Context())
	require.ErrorIs(t, err, tokenstore.ErrConflict)
	require.ErrorContains(t, err, `another replica seals with the encryption key "old" still`)
	require.ErrorContains(t, quick.SetKeys(t.Context(), ring(t, "new")), `another replica seals with the encryption key "old" still`)

	require.NoError(t, slow.SetKeys(t.Context(), ring(t, "new", "old")))
	_, err = quick.Rekey(t.Context())
	require.NoError(t, err)
	require.NoError(t, quick.SetKeys(t.Context(), ring(t, "new")))

	require.NoError(t, slow.SetKeys(t.Context(), ring(t, "old", "new")), "back again")
	_, err = quick.Rekey(t.Context())
	require.ErrorContains(t, err, `"old"`)
	require.NoError(t, slow.Close())
	_, err = quick.Rekey(t.Context())
	require.NoError(t, err, "one that has ended is not waited for")
}

// TestKeysAreReplacedUnderLoad turns the ring over again and again, with what was sealed before resealed and its key taken
// away, while records are refreshed, made and deleted: not one operation may fail or be lost.
func TestKeysAreReplacedUnderLoad(t *testing.T) {
	const orgs, writers, turns = 60, 4, 6
	onBothOpen(t, func(t *testing.T, s rekeyable) {
		for n := range orgs {
			require.NoError(t, s.Save(t.Context(), orgSlot(fmt.Sprint(n)), storetest.Grant(), tokenstore.Version{}))
		}
		ctx, stop := context.WithCancel(t.Context())
		var working sync.WaitGroup
		var saves atomic.Int64
		for w := range writers {
			working.Go(func() {
				for n := w; ctx.Err() == nil; n = (n + writers) % orgs {
					if err := useOnce(t.Context(), s, n); err != nil {
						t.Errorf("during a change of keys: %v", err)
						return
					}
					saves.Add(1)
				}
			})
		}
		before := "old"
		for n := range turns {
			next := fmt.Sprint("key-", n)
			require.NoError(t, s.SetKeys(t.Context(), ring(t, before, next)))
			require.NoError(t, s.SetKeys(t.Context(), ring(t, next, before)))
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.True(t, done.Complete)
			require.NoError(t, s.SetKeys(t.Context(), ring(t, next)))
			before = next
		}
		stop()
		working.Wait()
		t.Logf("%d saves during %d changes of keys", saves.Load(), turns)
		var generations int64
		for slot, entry := range s.List(t.Context(), "") {
			require.NoError(t, entry.Err, slot)
			generations += entry.Record.Generation - 1
		}
		require.Equal(t, saves.Load(), generations, "no save was undone")
	})
}

// useOnce refreshes a record and signs somebody in and out.
func useOnce(ctx context.Context, s rekeyable, n int) error {
	id := fmt.Sprint("session-", n)
	if err := s.Put(ctx, id, []byte("CANARY"), time.Hour); err != nil {
		return err
	}
	if err := refreshOnce(ctx, s, orgSlot(fmt.Sprint(n))); err != nil {
		return err
	}
	value, err := s.Take(ctx, id)
	if err == nil && string(value) != "CANARY" {
		err = errors.New("another value")
	}
	return err
}
