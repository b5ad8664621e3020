package tokenstore

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAKeyFileIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "bifrost.db.key") // the folder is made like the store's
	key, created, err := LoadOrCreateKeyFile(path)
	require.NoError(t, err)
	require.True(t, created)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())

	again, created, err := LoadOrCreateKeyFile(path)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, key, again)
	_, err = NewKeyring(key)
	require.NoError(t, err)
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file is left over")
}

func TestProcessesThatStartTogetherReadTheSameKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	keys, made := make([]Key, 8), make([]bool, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], made[i], err = LoadOrCreateKeyFile(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	makers := 0
	for i := range keys {
		require.Equal(t, keys[0].Bytes, keys[i].Bytes)
		if made[i] {
			makers++
		}
	}
	require.Equal(t, 1, makers)
}

func TestABadKeyFileIsRefusedAndKept(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"empty":            {"", 0o600},
		"text":             {"CANARY-password", 0o600},
		"too short":        {"Q0FOQVJZ", 0o600},
		"read by others":   {NewKey(), 0o644},
		"read by a group":  {NewKey(), 0o640},
		"written by group": {NewKey(), 0o620},
	} {
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(c.content), 0o600))
		require.NoError(t, os.Chmod(path, c.mode))
		_, created, err := LoadOrCreateKeyFile(path)
		require.ErrorContains(t, err, path, name)
		require.NotContains(t, err.Error(), "CANARY")
		require.False(t, created)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, c.content, string(content))
	}
}
