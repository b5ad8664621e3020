package storetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var deletes = map[string]func(*testing.T, Opened){
	"a deleted record leaves a tombstone": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		_, err := s.Get(t.Context(), slotOf("acme"))
		require.ErrorIs(t, err, tokenstore.ErrDeleted)
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	},

	"a delete at another version conflicts": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		next := refreshed(rec)
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), next, rec.Version()))
		require.ErrorIs(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()), tokenstore.ErrConflict)
		require.ErrorIs(t, s.Delete(t.Context(), slotOf("acme"), tokenstore.Version{}), tokenstore.ErrConflict)
		_, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
	},

	"there is nothing to delete in an empty slot or under a tombstone": func(t *testing.T, s Opened) {
		require.ErrorIs(t, s.Delete(t.Context(), slotOf("acme"), tokenstore.Version{}), tokenstore.ErrConflict)
		rec := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		require.ErrorIs(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()), tokenstore.ErrConflict)
		buried := rec.Version()
		buried.Revision++
		require.ErrorIs(t, s.Delete(t.Context(), slotOf("acme"), buried), tokenstore.ErrConflict)
	},

	"what was in flight cannot resurrect a deleted grant": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		buried := rec.Version()
		buried.Revision++
		for _, prev := range []tokenstore.Version{rec.Version(), {}, buried} {
			require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), refreshed(rec), prev), tokenstore.ErrConflict)
		}
		_, err := s.Get(t.Context(), slotOf("acme"))
		require.ErrorIs(t, err, tokenstore.ErrDeleted)
	},

	"a new grant replaces a tombstone for good": func(t *testing.T, s Opened) {
		old := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), old.Version()))
		rec := saved(t, s, slotOf("acme"))
		got, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
		require.Equal(t, rec, got)
		slots, err := s.Due(t.Context(), rec.Due.Add(time.Hour), 10)
		require.NoError(t, err)
		require.Equal(t, []tokenstore.Slot{slotOf("acme")}, slots)
		require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), refreshed(old), old.Version()), tokenstore.ErrConflict)
	},

	"a tombstone is neither listed nor due": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		for slot := range s.List(t.Context(), "") {
			t.Errorf("listed %v", slot)
		}
		slots, err := s.Due(t.Context(), time.Now().Add(2*tokenstore.TombstoneLife), 10)
		require.NoError(t, err)
		require.Empty(t, slots)
	},
}
