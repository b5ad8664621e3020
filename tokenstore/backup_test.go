package tokenstore_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// backupOf returns the bytes of a backup, of the size that it announced.
func backupOf(t *testing.T, b *tokenstore.Backup, err error) []byte {
	t.Helper()
	require.NoError(t, err)
	var out bytes.Buffer
	n, err := b.WriteTo(&out)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.Equal(t, b.Size, n)
	require.EqualValues(t, b.Size, out.Len())
	return out.Bytes()
}

// trusted is a new grant whose record is not suspect.
func trusted() *tokenstore.Record {
	rec := storetest.Grant()
	rec.Suspect = false
	return rec
}

func restore(t *testing.T, path string, from []byte, trust bool) (tokenstore.Restored, error) {
	t.Helper()
	return tokenstore.RestoreFile(tokenstore.RestoreConfig{Path: path, Keys: storetest.Keys(t), From: bytes.NewReader(from), Trust: trust})
}

func TestARestoredStoreIsAsItWasAndSuspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "bifrost.db")
	s, err := open(t, path)
	require.NoError(t, err)
	kept, gone := trusted(), trusted()
	require.NoError(t, s.Save(t.Context(), acme, kept, tokenstore.Version{}))
	require.NoError(t, s.Save(t.Context(), orgSlot("gone"), gone, tokenstore.Version{}))
	require.NoError(t, s.Delete(t.Context(), orgSlot("gone"), gone.Version()))
	require.NoError(t, s.Put(t.Context(), "ticket", []byte("CANARY"), time.Hour))
	b, err := s.Backup()
	copied := backupOf(t, b, err)
	require.NotContains(t, string(copied), "CANARY")

	later := trusted()
	require.NoError(t, s.Save(t.Context(), orgSlot("later"), later, tokenstore.Version{}))
	_, err = restore(t, path, copied, false)
	require.ErrorIs(t, err, tokenstore.ErrInUse)
	require.NoError(t, s.Close())

	done, err := restore(t, path, copied, false)
	require.NoError(t, err)
	require.Equal(t, 1, done.Records)
	require.Equal(t, tokenstore.Distrusted{Marked: 1}, done.Distrusted)
	require.Equal(t, s.ID(), done.Info.Store)

	back := storetest.OpenFileAt(t, path)
	require.NotEqual(t, s.ID(), back.ID())
	_, older := back.OlderCopy()
	require.False(t, older, "what a restore made is what belongs there")
	got, err := back.Get(t.Context(), acme)
	require.NoError(t, err)
	require.True(t, got.Suspect)
	got.Suspect, got.Revision = false, kept.Revision
	require.Equal(t, kept, got)
	_, err = back.Get(t.Context(), orgSlot("gone"))
	require.ErrorIs(t, err, tokenstore.ErrDeleted)
	_, err = back.Get(t.Context(), orgSlot("later"))
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
	_, err = back.Take(t.Context(), "ticket")
	require.ErrorIs(t, err, tokenstore.ErrNotFound, "it may have been spent since")

	before := storetest.OpenFileAt(t, done.Before)
	require.Equal(t, s.ID(), before.ID())
	got, err = before.Get(t.Context(), orgSlot("later"))
	require.NoError(t, err)
	require.Equal(t, later, got, "nothing stored is lost")
	_, older = before.OlderCopy()
	require.False(t, older, "its sidecar went with it")
}

func TestATrustedRestoreMarksNothing(t *testing.T) {
	path, _, _ := used(t)
	s, err := open(t, path)
	require.NoError(t, err)
	rec := trusted()
	require.NoError(t, s.Save(t.Context(), orgSlot("other"), rec, tokenstore.Version{}))
	require.NoError(t, s.Close())
	b, err := tokenstore.BackupFile(path)
	copied := backupOf(t, b, err)
	done, err := restore(t, path, copied, true)
	require.NoError(t, err)
	require.Zero(t, done.Distrusted)
	got, err := storetest.OpenFileAt(t, path).Get(t.Context(), orgSlot("other"))
	require.NoError(t, err)
	require.Equal(t, rec, got)
}

func TestABackupFitsAnyPlace(t *testing.T) {
	path, _, _ := used(t)
	b, err := tokenstore.BackupFile(path)
	copied := backupOf(t, b, err)
	for name, prepare := range map[string]func(t *testing.T, path string){
		"where nothing was": func(*testing.T, string) {},
		"where the store was lost": func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".id", []byte("another\n7\n"), 0o600))
		},
		"where the store was cut":   func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) },
		"where the file is damaged": func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, []byte("damaged"), 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(t.TempDir(), "bifrost.db")
			prepare(t, at)
			_, err := restore(t, at, copied, false)
			require.NoError(t, err)
			s := storetest.OpenFileAt(t, at)
			_, older := s.OlderCopy()
			require.False(t, older)
			_, err = s.Get(t.Context(), acme)
			require.NoError(t, err)
		})
	}
}

func TestARestoreRefusesWhatIsNotAWholeBackup(t *testing.T) {
	path, _, _ := used(t)
	b, err := tokenstore.BackupFile(path)
	copied := backupOf(t, b, err)
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	flipped := bytes.Clone(copied)
	flipped[len(flipped)/2] ^= 1
	listed := func() (names []string) {
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		for _, entry := range entries {
			names = append(names, entry.Name())
		}
		return names
	}
	before := listed()
	for name, from := range map[string][]byte{
		"empty":                     nil,
		"a copy of a live file":     raw,
		"cut in the header":         copied[:20],
		"cut in the database":       copied[:len(copied)/2],
		"cut in the digest":         copied[:len(copied)-2],
		"without a digest":          copied[:len(copied)-65],
		"with more behind it":       append(bytes.Clone(copied), 'x'),
		"with a flipped bit":        flipped,
		"of another header":         bytes.Replace(copied, []byte(`"store":"`), []byte(`"store":"X`), 1),
		"of a later format":         bytes.Replace(copied, []byte("bifrost-backup/1"), []byte("bifrost-backup/2"), 1),
		"with an unbelievable size": []byte(`{"format":"bifrost-backup/1","bytes":-1}` + "\n"),
	} {
		_, err := tokenstore.VerifyBackup(bytes.NewReader(from))
		require.Error(t, err, name)
		_, err = restore(t, path, from, false)
		require.Error(t, err, name)
	}
	wrong, err := tokenstore.NewKeyring(tokenstore.Key{ID: "test", Bytes: []byte(strings.Repeat("x", 32))})
	require.NoError(t, err)
	_, err = tokenstore.RestoreFile(tokenstore.RestoreConfig{Path: path, Keys: wrong, From: bytes.NewReader(copied)})
	require.ErrorIs(t, err, tokenstore.ErrWrongKey)
	require.Equal(t, before, listed(), "nothing was moved, nothing is left over")
	_, older := storetest.OpenFileAt(t, path).OlderCopy()
	require.False(t, older)
}

func TestARestoreKeepsTheKeyThatAStartNeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bifrost.db")
	opened := func(keys ...string) (*tokenstore.File, error) {
		return tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: ring(t, keys...)})
	}
	s, err := opened("old")
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), acme, trusted(), tokenstore.Version{}))
	require.NoError(t, s.Close())
	b, err := tokenstore.BackupFile(path)
	copied := backupOf(t, b, err)
	_, err = tokenstore.RestoreFile(tokenstore.RestoreConfig{Path: path, Keys: ring(t, "new", "old"), From: bytes.NewReader(copied), Trust: true})
	require.NoError(t, err)
	_, err = opened("new")
	require.ErrorIs(t, err, tokenstore.ErrWrongKey, "the records are under the old key")
	s, err = opened("old")
	require.NoError(t, err)
	require.NoError(t, s.Close())
}

func TestNoBackupIsMadeOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bifrost.db")
	_, err := tokenstore.BackupFile(path)
	require.ErrorContains(t, err, "there is no store")
	require.NoFileExists(t, path)
	holder := storetest.OpenFileAt(t, path)
	_, err = tokenstore.BackupFile(path)
	require.ErrorIs(t, err, tokenstore.ErrInUse)
	require.NoError(t, holder.Ping(t.Context()))
}
