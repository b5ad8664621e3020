package tokenstore_test

import (
	"bytes"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// noted returns the entries of a slot as text, "" for one that cannot be read.
func noted(t *testing.T, s tokenstore.Journal, slot tokenstore.Slot) (texts []string) {
	t.Helper()
	entries, err := s.Notes(t.Context(), slot)
	require.NoError(t, err)
	for _, entry := range entries {
		texts = append(texts, string(entry))
	}
	return texts
}

func TestRekeyLetsTheOldKeyOfEntriesGo(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"old"}, func(s rekeyable) {
			for _, entry := range []string{"one", "two", "three"} {
				require.NoError(t, s.Note(t.Context(), orgSlot("acme"), []byte(entry)))
			}
			require.NoError(t, s.Note(t.Context(), orgSlot("globex"), []byte("other")))
		})
		open.with(t, []string{"new", "old"}, func(s rekeyable) {
			require.NoError(t, s.Note(t.Context(), orgSlot("acme"), []byte("four")))
			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.Equal(t, tokenstore.Rekeyed{Key: "new", Complete: true}, done, "entries are no records")
		})
		open.with(t, []string{"new"}, func(s rekeyable) {
			require.Equal(t, []string{"four", "three", "two", "one"}, noted(t, s, orgSlot("acme")))
			require.Equal(t, []string{"other"}, noted(t, s, orgSlot("globex")))
		})
	})
}

func TestEntryThatWasTamperedWithIsToldAsSuch(t *testing.T) {
	onBoth(t, func(t *testing.T, open opener) {
		open.with(t, []string{"k"}, func(s rekeyable) {
			require.NoError(t, s.Note(t.Context(), orgSlot("acme"), []byte("one")))
			require.NoError(t, s.Note(t.Context(), orgSlot("acme"), []byte("two")))
			require.NoError(t, s.Note(t.Context(), orgSlot("globex"), []byte("theirs")))
			mine, err := tokenstore.SealedNotes(t.Context(), backend(s), orgSlot("acme"))
			require.NoError(t, err)
			theirs, err := tokenstore.SealedNotes(t.Context(), backend(s), orgSlot("globex"))
			require.NoError(t, err)

			require.NoError(t, tokenstore.ReplaceNote(t.Context(), backend(s), orgSlot("acme"), mine[0], theirs[0]))
			require.Equal(t, []string{"", "one"}, noted(t, s, orgSlot("acme")), "moved from another slot")
			flipped := bytes.Clone(mine[1])
			flipped[len(flipped)-1] ^= 1
			require.NoError(t, tokenstore.ReplaceNote(t.Context(), backend(s), orgSlot("acme"), mine[1], flipped))
			require.Equal(t, []string{"", ""}, noted(t, s, orgSlot("acme")))
			require.ErrorIs(t, tokenstore.ReplaceNote(t.Context(), backend(s), orgSlot("acme"), mine[1], mine[0]), tokenstore.ErrConflict)
			require.Equal(t, []string{"theirs"}, noted(t, s, orgSlot("globex")))

			done, err := s.Rekey(t.Context())
			require.NoError(t, err)
			require.True(t, done.Complete, "they hold no key back")
		})
	})
}

func TestEntriesEndAndLeaveTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.OpenFile(t)
		require.NoError(t, s.Note(t.Context(), acme, []byte("old")))
		time.Sleep(tokenstore.NotesLife)
		require.Equal(t, []string{"old"}, noted(t, s, acme))
		time.Sleep(time.Millisecond)
		require.Empty(t, noted(t, s, acme))
		require.NoError(t, s.Put(t.Context(), "any", nil, time.Minute))
		require.NotContains(t, string(dumpBolt(t, s.DB())), "acme", "a write purges it")
		require.NoError(t, s.Note(t.Context(), acme, []byte("new")))
		require.Equal(t, []string{"new"}, noted(t, s, acme))
	})
}

func TestEntriesEndInRedis(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	require.NoError(t, s.Note(t.Context(), acme, []byte("x")))
	life, err := direct(t, server).PTTL(t.Context(), tokenstore.RedisNotes(acme)).Result()
	require.NoError(t, err)
	require.InDelta(t, tokenstore.NotesLife, life, float64(time.Minute))
}

// TestLostReplyOfAnEntryIsNoSecondOne: the client sends the script again.
func TestLostReplyOfAnEntryIsNoSecondOne(t *testing.T) {
	server := storetest.StartRedis(t)
	s := storetest.OpenRedis(t, server.URL)
	require.NoError(t, s.Note(t.Context(), acme, []byte("first")))
	sealed, err := tokenstore.SealedNotes(t.Context(), s.Backend, acme)
	require.NoError(t, err)
	require.NoError(t, s.Note(t.Context(), acme, []byte("second")))
	require.NoError(t, tokenstore.AddNote(t.Context(), s.Backend, acme, sealed[0]))
	require.Equal(t, []string{"second", "first"}, noted(t, s, acme))
}

func TestStoreFromBeforeThereWereEntriesTakesThem(t *testing.T) {
	path, _, rec := used(t)
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(tokenstore.BucketNotes) }))
	require.NoError(t, db.Close())
	s, err := open(t, path)
	require.NoError(t, err)
	require.Empty(t, noted(t, s, acme))
	require.NoError(t, s.Note(t.Context(), acme, []byte("x")))
	require.Equal(t, []string{"x"}, noted(t, s, acme))
	require.NoError(t, s.Close())
	require.NotNil(t, rec)
}

func TestEntriesAreInABackup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bifrost.db")
	s, err := open(t, path)
	require.NoError(t, err)
	require.NoError(t, s.Note(t.Context(), acme, []byte("CANARY-before")))
	b, err := s.Backup()
	copied := backupOf(t, b, err)
	require.NotContains(t, string(copied), "CANARY")
	require.NoError(t, s.Note(t.Context(), acme, []byte("after")))
	require.NoError(t, s.Close())
	_, err = restore(t, path, copied, false)
	require.NoError(t, err)
	require.Equal(t, []string{"CANARY-before"}, noted(t, storetest.OpenFileAt(t, path), acme))
}
