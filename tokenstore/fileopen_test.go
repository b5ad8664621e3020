package tokenstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// open opens the store at path with the test key, to be closed by the caller.
func open(t *testing.T, path string) (*tokenstore.File, error) {
	t.Helper()
	return tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: storetest.Keys(t)})
}

// used returns the path of a closed store that holds one record.
func used(t *testing.T) (path, id string, rec *tokenstore.Record) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "data", "bifrost.db")
	s, err := open(t, path)
	require.NoError(t, err)
	rec = storetest.Grant()
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	require.NoError(t, s.Close())
	return path, s.ID(), rec
}

func TestAFileKeepsItsRecordsAndItsID(t *testing.T) {
	path, id, rec := used(t)
	s := storetest.OpenFileAt(t, path)
	require.NoError(t, s.Ping(t.Context()))
	require.Equal(t, id, s.ID())
	got, err := s.Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, rec, got)
}

func TestEverythingThatAFileMakesIsPrivate(t *testing.T) {
	path, _, _ := used(t)
	for name, mode := range map[string]os.FileMode{filepath.Dir(path): 0o700, path: 0o600, path + ".id": 0o600} {
		info, err := os.Stat(name)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), name)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 2, "no temporary file is left over")
}

func TestAFileThatOthersMayReadIsRefused(t *testing.T) {
	path, _, _ := used(t)
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o602} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := open(t, path)
		require.ErrorContains(t, err, "chmod 600")
	}
}

func TestAFileInUseIsRefusedAfterFiveSeconds(t *testing.T) {
	path, _, _ := used(t)
	synctest.Test(t, func(t *testing.T) {
		holder := storetest.OpenFileAt(t, path)
		start := time.Now()
		_, err := open(t, path)
		require.ErrorIs(t, err, tokenstore.ErrInUse)
		require.ErrorContains(t, err, path)
		require.LessOrEqual(t, time.Since(start), 5*time.Second+100*time.Millisecond)
		require.NoError(t, holder.Ping(t.Context()))
	})
}

func TestAFileThatIsLetGoIsOpened(t *testing.T) {
	path, _, _ := used(t)
	synctest.Test(t, func(t *testing.T) {
		holder, err := open(t, path)
		require.NoError(t, err)
		time.AfterFunc(3*time.Second, func() { _ = holder.Close() }) // its error would fail the next open
		storetest.OpenFileAt(t, path)
	})
}

func TestALostFileIsNeverSilentlyFresh(t *testing.T) {
	foreign := func(t *testing.T, path string, fill func(*bbolt.Tx) error) {
		require.NoError(t, os.Remove(path))
		db, err := bbolt.Open(path, 0o600, nil)
		require.NoError(t, err)
		require.NoError(t, db.Update(fill))
		require.NoError(t, db.Close())
	}
	for name, lose := range map[string]func(t *testing.T, path string){
		"gone":              func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"of zero length":    func(t *testing.T, path string) { require.NoError(t, os.Truncate(path, 0)) },
		"an empty database": func(t *testing.T, path string) { foreign(t, path, func(*bbolt.Tx) error { return nil }) },
		"another program's database": func(t *testing.T, path string) {
			foreign(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		},
		"another store": func(t *testing.T, path string) {
			other, _, _ := used(t)
			require.NoError(t, os.Rename(other, path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path, _, _ := used(t)
			lose(t, path)
			for range 2 {
				_, err := open(t, path)
				require.ErrorContains(t, err, "restore the store from a backup, or delete "+path+".id")
			}
			require.NoError(t, os.Remove(path+".id"))
			if name == "another program's database" {
				_, err := open(t, path)
				require.ErrorContains(t, err, "another program's database")
				return
			}
			require.NoError(t, storetest.OpenFileAt(t, path).Ping(t.Context()))
		})
	}
}

func TestADamagedFileIsAnError(t *testing.T) {
	for name, content := range map[string]string{"cut short": "x", "overwritten": strings.Repeat("CANARY", 10000)} {
		t.Run(name, func(t *testing.T) {
			path, _, _ := used(t)
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			_, err := open(t, path)
			require.Error(t, err)
			require.NotContains(t, err.Error(), "CANARY")
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, content, string(raw), "it is left untouched")
		})
	}
}

func TestARestoredFileWithoutItsSidecarGetsOne(t *testing.T) {
	path, id, _ := used(t)
	require.NoError(t, os.Remove(path+".id"))
	require.Equal(t, id, storetest.OpenFileAt(t, path).ID())
	sidecar, err := os.ReadFile(path + ".id")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(sidecar), id+"\n"))
}

func TestAFileRefusesAWrongKey(t *testing.T) {
	path, _, rec := used(t)
	wrong, err := tokenstore.NewKeyring(tokenstore.Key{ID: "test", Bytes: []byte(strings.Repeat("x", 32))})
	require.NoError(t, err)
	_, err = tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: wrong})
	require.ErrorIs(t, err, tokenstore.ErrWrongKey)
	got, err := storetest.OpenFileAt(t, path).Get(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, rec, got)
}

func TestFencesRiseOverARestart(t *testing.T) {
	path, _, _ := used(t)
	fence := int64(0)
	for range 3 {
		s, err := open(t, path)
		require.NoError(t, err)
		lease, err := s.Acquire(t.Context(), acme, time.Hour)
		require.NoError(t, err, "leases end with the process")
		require.Greater(t, lease.Fence, fence)
		fence = lease.Fence
		require.NoError(t, s.Close())
	}
}

func TestAClosedFileIsUnavailable(t *testing.T) {
	s, err := open(t, filepath.Join(t.TempDir(), "bifrost.db"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = s.Get(t.Context(), acme)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	require.ErrorIs(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}), tokenstore.ErrUnavailable)
	require.ErrorIs(t, s.Ping(t.Context()), tokenstore.ErrUnavailable)
}
