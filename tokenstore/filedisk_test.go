package tokenstore_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// A refresh whose answer finds no room on the disk has lost the grant.
func TestNothingIsRefreshedOntoAFullDisk(t *testing.T) {
	s := storetest.OpenFile(t)
	held, err := s.Acquire(t.Context(), acme, time.Minute)
	require.NoError(t, err)
	s.SetFree(func() (uint64, error) { return 16<<20 - 1, nil })
	_, err = s.Acquire(t.Context(), orgSlot("globex"), time.Minute)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
	require.ErrorContains(t, err, "make room")
	_, err = s.Backup()
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)

	held, err = s.Renew(t.Context(), held, time.Minute)
	require.NoError(t, err, "what has begun must end")
	require.NoError(t, s.Save(t.Context(), acme, storetest.Grant(), tokenstore.Version{}))
	require.NoError(t, s.Release(t.Context(), held))

	for _, free := range []func() (uint64, error){
		func() (uint64, error) { return 16 << 20, nil },
		func() (uint64, error) { return 0, errors.New("not known") },
	} {
		s.SetFree(free)
		lease, err := s.Acquire(t.Context(), acme, time.Minute)
		require.NoError(t, err)
		require.NoError(t, s.Release(t.Context(), lease))
	}
}

func TestFreeBytesAreMeasured(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: filepath.Join(t.TempDir(), "bifrost.db"), Keys: storetest.Keys(t), Metrics: reg})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	n, err := testutil.GatherAndCount(reg, "bifrost_store_free_bytes")
	require.NoError(t, err)
	require.Equal(t, 1, n)
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "bifrost_store_free_bytes" {
			require.Greater(t, family.GetMetric()[0].GetGauge().GetValue(), float64(1<<20))
		}
	}
}
