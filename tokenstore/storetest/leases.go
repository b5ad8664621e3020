package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var leases = map[string]func(*testing.T, Opened){
	"one holder at a time": func(t *testing.T, s Opened) {
		before := time.Now()
		lease, err := s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.NoError(t, err)
		require.Equal(t, slotOf("acme"), lease.Slot)
		require.NotEmpty(t, lease.Owner)
		require.WithinRange(t, lease.Expires, before.Add(time.Minute), time.Now().Add(time.Minute))
		_, err = s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
		_, err = s.Acquire(t.Context(), slotOf("globex"), time.Minute)
		require.NoError(t, err, "another slot is free")
	},

	"a store that has lost nothing says so": func(t *testing.T, s Opened) {
		for range 2 {
			lease, err := s.Acquire(t.Context(), slotOf("acme"), time.Minute)
			require.NoError(t, err)
			require.Zero(t, lease.Since)
			lease, err = s.Renew(t.Context(), lease, time.Minute)
			require.NoError(t, err)
			require.Zero(t, lease.Since)
			require.NoError(t, s.Release(t.Context(), lease))
		}
	},

	"of concurrent callers exactly one holds it": func(t *testing.T, s Opened) {
		var held atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				switch _, err := s.Acquire(t.Context(), slotOf("acme"), time.Minute); {
				case err == nil:
					held.Add(1)
				case !errors.Is(err, tokenstore.ErrHeld):
					t.Errorf("acquire: %v", err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, held.Load())
	},

	"a released lease is free and fences rise": func(t *testing.T, s Opened) {
		fence := int64(0)
		for range 5 {
			lease, err := s.Acquire(t.Context(), slotOf("acme"), time.Minute)
			require.NoError(t, err)
			require.Greater(t, lease.Fence, fence)
			fence = lease.Fence
			require.NoError(t, s.Release(t.Context(), lease))
		}
	},

	"fences go on rising after a delete": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		first, err := s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.NoError(t, err)
		require.NoError(t, s.Release(t.Context(), first))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		second, err := s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.NoError(t, err)
		require.Greater(t, second.Fence, first.Fence)
	},

	"an expired lease is free, and its holder can neither renew nor release": func(t *testing.T, s Opened) {
		first, err := s.Acquire(t.Context(), slotOf("acme"), 30*time.Millisecond)
		require.NoError(t, err)
		var second tokenstore.Lease
		require.Eventually(t, func() bool {
			second, err = s.Acquire(t.Context(), slotOf("acme"), time.Minute)
			return err == nil
		}, 5*time.Second, 5*time.Millisecond)
		require.False(t, time.Now().Before(first.Expires), "it was given away too early")
		require.Greater(t, second.Fence, first.Fence)
		_, err = s.Renew(t.Context(), first, time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
		require.NoError(t, s.Release(t.Context(), first))
		_, err = s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld, "a release by the former holder must not free it")
	},

	"an expired lease cannot be renewed even if nobody took it": func(t *testing.T, s Opened) {
		lease, err := s.Acquire(t.Context(), slotOf("acme"), 20*time.Millisecond)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return time.Now().After(lease.Expires.Add(20 * time.Millisecond)) },
			5*time.Second, 5*time.Millisecond)
		_, err = s.Renew(t.Context(), lease, time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
	},

	"a renewed lease outlives its first term": func(t *testing.T, s Opened) {
		lease, err := s.Acquire(t.Context(), slotOf("acme"), 200*time.Millisecond)
		require.NoError(t, err)
		renewed, err := s.Renew(t.Context(), lease, time.Minute)
		require.NoError(t, err)
		require.Equal(t, lease.Owner, renewed.Owner)
		require.Equal(t, lease.Fence, renewed.Fence)
		require.WithinDuration(t, time.Now().Add(time.Minute), renewed.Expires, 5*time.Second)
		require.Eventually(t, func() bool { return time.Now().After(lease.Expires) }, 5*time.Second, 5*time.Millisecond)
		_, err = s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
	},

	"a lease that was never given out cannot be renewed or released": func(t *testing.T, s Opened) {
		forged := tokenstore.Lease{Slot: slotOf("acme"), Owner: "forged", Fence: 1}
		_, err := s.Renew(t.Context(), forged, time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
		_, err = s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.NoError(t, err)
		_, err = s.Renew(t.Context(), forged, time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
		require.NoError(t, s.Release(t.Context(), forged))
		_, err = s.Acquire(t.Context(), slotOf("acme"), time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
	},
}
