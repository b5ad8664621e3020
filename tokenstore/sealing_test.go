package tokenstore

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slowEngine holds every write up between its sealing and its storing.
type slowEngine struct {
	*fileEngine
	begun, goOn chan struct{}
}

func (e *slowEngine) hold() {
	e.begun <- struct{}{}
	<-e.goOn
}

func (e *slowEngine) swap(ctx context.Context, slot Slot, prev Version, next row) error {
	e.hold()
	return e.fileEngine.swap(ctx, slot, prev, next)
}

func (e *slowEngine) put(ctx context.Context, id [32]byte, sealed []byte, life time.Duration) error {
	e.hold()
	return e.fileEngine.put(ctx, id, sealed, life)
}

// What was sealed with the ring before is stored when SetKeys returns: a rekey that comes next finds it. Otherwise it would appear
// under a key that has been taken away meanwhile.
func TestSetKeysWaitsForWhatWasSealedBefore(t *testing.T) {
	slot := Slot{"Microsoft_Graph", "acme"}
	for name, write := range map[string]func(v *vault) error{
		"save":   func(v *vault) error { return v.Save(t.Context(), slot, &Record{Grant: "g"}, Version{}) },
		"delete": func(v *vault) error { return v.Delete(t.Context(), slot, Version{Grant: "g", Revision: 1}) },
		"put":    func(v *vault) error { return v.Put(t.Context(), "link", nil, time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			before, err := NewKeyring(testKey("old", 'o'))
			require.NoError(t, err)
			after, err := NewKeyring(testKey("new", 'n'), testKey("old", 'o'))
			require.NoError(t, err)
			f, err := OpenFile(FileConfig{Path: filepath.Join(t.TempDir(), "bifrost.db"), Keys: before})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, f.Close()) })
			require.NoError(t, f.Save(t.Context(), slot, &Record{Grant: "g"}, Version{}))
			slow := &slowEngine{f.engine, make(chan struct{}), make(chan struct{})}
			v := newVault(slow, before, nil)

			var working sync.WaitGroup
			working.Go(func() { _ = write(v) }) // whether it may is not the point
			<-slow.begun
			set := make(chan error, 1)
			working.Go(func() { set <- v.setKeys(t.Context(), after, nil) })
			require.Eventually(t, func() bool { // until it waits, or does not
				if !v.sealing.TryRLock() {
					return true
				}
				v.sealing.RUnlock()
				return len(set) > 0
			}, 10*time.Second, time.Millisecond)
			require.Empty(t, set, "it waits for what is on its way")
			close(slow.goOn)
			working.Wait()
			require.NoError(t, <-set)
		})
	}
}
