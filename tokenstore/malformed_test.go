package tokenstore_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// givesWayToAPerson says that a row without a readable version is left alone by whoever does not name it, and that a new grant
// and a disconnect may replace it.
func givesWayToAPerson(t *testing.T, s tokenstore.Store, damage func()) {
	t.Helper()
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}))

	damage()
	stale := unreadableStored(t, s)
	require.Error(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{Grant: "another", Generation: 1, Revision: 1}), "it is not named")
	unreadableStored(t, s)

	next := storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, next, stale))
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, next, got)
	require.ErrorIs(t, s.Save(t.Context(), acme, storetest.Grant(), stale), tokenstore.ErrConflict, "a whole row does not give way")
	require.ErrorIs(t, s.Delete(t.Context(), acme, stale), tokenstore.ErrConflict)

	damage()
	require.NoError(t, s.Delete(t.Context(), acme, unreadableStored(t, s)))
	_, err = s.Get(t.Context(), acme)
	require.ErrorIs(t, err, tokenstore.ErrDeleted)
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}))
}

func TestAMalformedRowGivesWayToAPerson(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		for name, raw := range map[string][]byte{"empty": {}, "another format": {9, 0}, "cut": {1, 0, 5, 'g'}} {
			t.Run(name, func(t *testing.T) {
				s := storetest.OpenFile(t)
				givesWayToAPerson(t, s, func() { setRow(t, s, acme, raw) })
			})
		}
	})
	t.Run("redis", func(t *testing.T) {
		server := storetest.StartRedis(t)
		behind := direct(t, server)
		row := tokenstore.RedisRow(acme)
		for name, damage := range map[string]func(redis.Pipeliner){
			"of another type": func(p redis.Pipeliner) { p.Set(t.Context(), row, "x", 0) },
			"evicted":         func(p redis.Pipeliner) { p.Del(t.Context(), row) },
			"without a seal":  func(p redis.Pipeliner) { p.HDel(t.Context(), row, "b") },
			"not a number":    func(p redis.Pipeliner) { p.HSet(t.Context(), row, "d", "1x") },
			"a huge number":   func(p redis.Pipeliner) { p.HSet(t.Context(), row, "n", "99999999999999999999") },
			"neither nor":     func(p redis.Pipeliner) { p.HSet(t.Context(), row, "x", "2") },
		} {
			t.Run(name, func(t *testing.T) {
				require.NoError(t, behind.FlushAll(t.Context()).Err())
				s := storetest.OpenRedis(t, server.URL)
				givesWayToAPerson(t, s, func() {
					p := behind.Pipeline()
					damage(p)
					_, err := p.Exec(t.Context())
					require.NoError(t, err)
				})
			})
		}
	})
}

// setRow replaces a row behind the back of a File.
func setRow(t *testing.T, s *tokenstore.File, slot tokenstore.Slot, raw []byte) {
	t.Helper()
	require.NoError(t, s.DB().Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(tokenstore.BucketRows).Put(tokenstore.SlotKey(slot), raw)
	}))
}

// A damaged tombstone leaves its entry in the index of what ends. When that time comes, the connection made since must not
// disappear with it: its org would use the global connection.
func TestWhatADamagedRowLeavesInTheIndexesHarmsNobody(t *testing.T) {
	s := storetest.OpenFile(t)
	rec := storetest.Grant()
	rec.Due = time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	setRow(t, s, acme, nil) // the entry of its due time stays
	damaged := unreadableStored(t, s)
	require.NoError(t, s.Delete(t.Context(), acme, damaged))
	slots, err := s.Due(t.Context(), time.Now(), 9)
	require.NoError(t, err)
	require.Empty(t, slots, "a tombstone is never due")
	setRow(t, s, acme, nil) // the entry of its end stays
	next := storetest.Grant()
	next.Due = time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	require.NoError(t, s.Save(t.Context(), acme, next, unreadableStored(t, s)))
	require.NoError(t, s.DB().Update(func(tx *bbolt.Tx) error { // as if the tombstone's thirty days were over
		expiry := tx.Bucket([]byte("expiry"))
		key, _ := expiry.Cursor().First()
		ended := append(make([]byte, 8), bytes.Clone(key[8:])...)
		return expiry.Put(ended, nil)
	}))
	require.NoError(t, s.Put(t.Context(), "any write", nil, time.Minute))
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, next, got)
	slots, err = s.Due(t.Context(), time.Now(), 9)
	require.NoError(t, err)
	require.Empty(t, slots, "it is due in an hour")
}

func unreadableStored(t *testing.T, s tokenstore.Store) tokenstore.Version {
	t.Helper()
	_, err := s.Get(t.Context(), acme)
	require.NotErrorIs(t, err, tokenstore.ErrNotFound)
	damaged, is := errors.AsType[*tokenstore.UnreadableError](err)
	require.True(t, is, "%v", err)
	return damaged.Stored
}
