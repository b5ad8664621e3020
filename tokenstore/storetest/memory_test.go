package storetest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestMemoryIsAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Opened {
		m := storetest.NewMemory()
		return storetest.Opened{Backend: m, Dump: m.Shelved}
	})
}

func TestFailOverLosesWhatIsYoung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.NewMemory()
		m.Journal = time.Second
		slot := tokenstore.Slot{Integration: "graph", Org: "acme"}
		rec := storetest.Grant()
		require.NoError(t, m.Save(t.Context(), slot, rec, tokenstore.Version{}))
		pass(time.Minute)
		next := *rec
		next.Generation++
		require.NoError(t, m.Save(t.Context(), slot, &next, rec.Version()))
		lease, err := m.Acquire(t.Context(), slot, time.Minute)
		require.NoError(t, err)
		require.Zero(t, lease.Since)
		pass(400 * time.Millisecond)

		m.FailOver(300 * time.Millisecond)
		require.EqualValues(t, 2, m.Peeked(slot).Generation, "that is older")
		m.FailOver(time.Second)
		got, err := m.Get(t.Context(), slot)
		require.NoError(t, err)
		require.Equal(t, rec, got)
		again, err := m.Acquire(t.Context(), slot, time.Minute)
		require.NoError(t, err, "the lease is lost too")
		require.Greater(t, again.Fence, lease.Fence)
		require.Equal(t, time.Now(), again.Since)
	})
}

// pass lets fake time pass.
func pass(d time.Duration) { time.Sleep(d) }
