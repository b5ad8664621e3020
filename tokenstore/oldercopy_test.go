package tokenstore_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// copyFile copies a file as an operator does, with nothing beside it.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, raw, 0o600))
}

// An operator who puts an older copy of the file back, without a restore, would otherwise have every refresh token that was used
// since sent again.
func TestAnOlderCopyIsSuspect(t *testing.T) {
	for name, exchange := range map[string]func(t *testing.T, path string){
		"made while the store was closed": func(t *testing.T, path string) {
			copyFile(t, path, path+".copy")
			s, err := open(t, path)
			require.NoError(t, err)
			require.NoError(t, s.Close())
			copyFile(t, path+".copy", path)
		},
		"made while the store was open": func(t *testing.T, path string) {
			s, err := open(t, path)
			require.NoError(t, err)
			copyFile(t, path, path+".copy")
			require.NoError(t, s.Close())
			copyFile(t, path+".copy", path)
		},
		"with no sidecar": func(t *testing.T, path string) { require.NoError(t, os.Remove(path+".id")) },
	} {
		t.Run(name, func(t *testing.T) {
			path, id, _ := used(t)
			s, err := open(t, path)
			require.NoError(t, err)
			require.NoError(t, s.Save(t.Context(), orgSlot("globex"), trusted(), tokenstore.Version{}))
			require.NoError(t, s.Put(t.Context(), "ticket", []byte("value"), time.Hour))
			require.NoError(t, s.Close())
			exchange(t, path)

			s, err = open(t, path)
			require.NoError(t, err)
			found, older := s.OlderCopy()
			require.True(t, older)
			require.Equal(t, tokenstore.Distrusted{Marked: 2}, found)
			require.Equal(t, id, s.ID())
			rec, err := s.Get(t.Context(), orgSlot("globex"))
			require.NoError(t, err)
			require.True(t, rec.Suspect)
			_, err = s.Take(t.Context(), "ticket")
			require.ErrorIs(t, err, tokenstore.ErrNotFound)
			next := *rec
			next.Suspect = false
			require.NoError(t, s.Save(t.Context(), orgSlot("globex"), &next, rec.Version()))
			require.NoError(t, s.Close())

			again := storetest.OpenFileAt(t, path)
			_, older = again.OlderCopy()
			require.False(t, older, "it is told and marked once")
			rec, err = again.Get(t.Context(), orgSlot("globex"))
			require.NoError(t, err)
			require.False(t, rec.Suspect)
		})
	}
}

func TestARestartIsNoOlderCopy(t *testing.T) {
	path, id, _ := used(t)
	for name, prepare := range map[string]func(t *testing.T){
		"after a clean end": func(*testing.T) {},
		"after a crash": func(t *testing.T) { // what a killed process leaves behind, and a sidecar older than the store
			sidecar := path + ".id"
			copyFile(t, sidecar, sidecar+".kept")
			s, err := open(t, path)
			require.NoError(t, err)
			copyFile(t, path, path+".killed")
			require.NoError(t, s.Close())
			require.NoError(t, os.Rename(path+".killed", path))
			require.NoError(t, os.Rename(sidecar+".kept", sidecar))
		},
		"with the sidecar of an earlier release": func(t *testing.T) {
			require.NoError(t, os.WriteFile(path+".id", []byte(id+"\n"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			prepare(t)
			s, err := open(t, path)
			require.NoError(t, err)
			_, older := s.OlderCopy()
			require.False(t, older)
			require.Equal(t, id, s.ID())
			require.NoError(t, s.Close())
		})
	}
}

func TestADamagedSidecarIsAnError(t *testing.T) {
	for _, text := range []string{"", "id CANARY\n", "id 1 2\n"} {
		path, _, _ := used(t)
		require.NoError(t, os.WriteFile(path+".id", []byte(text), 0o600))
		_, err := open(t, path)
		require.ErrorContains(t, err, "empty or damaged")
	}
}
