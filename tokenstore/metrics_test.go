package tokenstore_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestOperationsAreMeasuredByResult(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s, err := tokenstore.OpenFile(tokenstore.FileConfig{
		Path: filepath.Join(t.TempDir(), "bifrost.db"), Keys: storetest.Keys(t), Metrics: reg,
	})
	require.NoError(t, err)
	rec := storetest.Grant()
	_, err = s.Get(t.Context(), acme)
	require.Error(t, err)
	require.NoError(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	require.Error(t, s.Save(t.Context(), acme, rec, tokenstore.Version{}))
	_, err = s.Acquire(t.Context(), acme, time.Minute)
	require.NoError(t, err)
	_, err = s.Acquire(t.Context(), acme, time.Minute)
	require.Error(t, err)
	require.Error(t, s.Save(t.Context(), tokenstore.Slot{}, rec, tokenstore.Version{}))
	require.NoError(t, s.Close())
	_, err = s.Take(t.Context(), "id")
	require.Error(t, err)

	families, err := reg.Gather()
	require.NoError(t, err)
	require.Len(t, families, 2)
	require.Equal(t, "bifrost_store_free_bytes", families[0].GetName())
	require.Equal(t, "bifrost_store_operation_duration_seconds", families[1].GetName())
	var series []string
	for _, m := range families[1].GetMetric() {
		var values []string
		for _, label := range m.GetLabel() {
			values = append(values, label.GetValue())
		}
		series = append(series, strings.Join(values, " "))
		require.EqualValues(t, 1, m.GetHistogram().GetSampleCount())
	}
	require.ElementsMatch(t, []string{
		"get not_found", "save ok", "save conflict", "save invalid", "acquire ok", "acquire held", "take unavailable",
	}, series)
}
