package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var records = map[string]func(*testing.T, Opened){
	"an empty slot is not found": func(t *testing.T, s Opened) {
		_, err := s.Get(t.Context(), slotOf("acme"))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
		require.NotErrorIs(t, err, tokenstore.ErrDeleted)
	},

	"a record comes back whole": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		require.Positive(t, rec.Revision)
		got, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
		require.Equal(t, rec, got)
	},

	"a record of zero values comes back whole": func(t *testing.T, s Opened) {
		rec := &tokenstore.Record{Grant: "g"}
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), rec, tokenstore.Version{}))
		got, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
		require.Equal(t, rec, got)
	},

	"a save at the stored version replaces": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		next := refreshed(rec)
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), next, rec.Version()))
		require.Greater(t, next.Revision, rec.Revision)
		got, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
		require.Equal(t, next, got)
	},

	"a save of the same generation replaces too": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		marked := *rec
		marked.Failure = &tokenstore.Failure{Code: "other"}
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), &marked, rec.Version()))
		require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), refreshed(rec), rec.Version()), tokenstore.ErrConflict,
			"what was read before the mark is stale")
	},

	"a new grant replaces at the stored version": func(t *testing.T, s Opened) {
		rec, reconnect := saved(t, s, slotOf("acme")), Grant()
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), reconnect, rec.Version()))
		require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), refreshed(rec), rec.Version()), tokenstore.ErrConflict,
			"the old grant's refresh must not undo a reconnect")
		got, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
		require.Equal(t, reconnect, got)
	},

	"a save at any other version conflicts and changes nothing": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		v := rec.Version()
		for name, prev := range map[string]tokenstore.Version{
			"no record":        {},
			"other grant":      {Grant: "other", Generation: v.Generation, Revision: v.Revision},
			"other generation": {Grant: v.Grant, Generation: v.Generation + 1, Revision: v.Revision},
			"other revision":   {Grant: v.Grant, Generation: v.Generation, Revision: v.Revision - 1},
		} {
			next := refreshed(rec)
			require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), next, prev), tokenstore.ErrConflict, name)
			require.Equal(t, rec.Revision, next.Revision, "a failed save leaves the record alone")
		}
		got, err := s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
		require.Equal(t, rec, got)
	},

	"a save of a version of nothing conflicts": func(t *testing.T, s Opened) {
		rec := Grant()
		prev := tokenstore.Version{Grant: rec.Grant, Generation: 1, Revision: 1}
		require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), rec, prev), tokenstore.ErrConflict)
	},

	"of concurrent savers exactly one wins": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		for range 5 {
			var (
				wins   atomic.Int32
				winner atomic.Pointer[tokenstore.Record]
				wg     sync.WaitGroup
			)
			for range 8 {
				wg.Go(func() {
					next := refreshed(rec)
					switch err := s.Save(t.Context(), slotOf("acme"), next, rec.Version()); {
					case err == nil:
						wins.Add(1)
						winner.Store(next)
					case !errors.Is(err, tokenstore.ErrConflict):
						t.Errorf("save: %v", err)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 1, wins.Load())
			got, err := s.Get(t.Context(), slotOf("acme"))
			require.NoError(t, err)
			require.Equal(t, winner.Load(), got)
			rec = got
		}
	},

	"a written-back record does not reuse a version": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		newer := refreshed(rec)
		newer.Revision = rec.Revision + 5 // as it was in a store that has lost it
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), newer, rec.Version()))
		require.Greater(t, newer.Revision, rec.Revision+5)
	},

	"slots with tricky names do not touch each other": func(t *testing.T, s Opened) {
		slots := trickySlots()
		stored := map[tokenstore.Slot]*tokenstore.Record{}
		for _, slot := range slots {
			stored[slot] = saved(t, s, slot)
		}
		require.Len(t, stored, len(slots))
		require.NoError(t, s.Delete(t.Context(), slots[0], stored[slots[0]].Version()))
		for _, slot := range slots[1:] {
			got, err := s.Get(t.Context(), slot)
			require.NoError(t, err, "%q", slot)
			require.Equal(t, stored[slot], got, "%q", slot)
		}
	},

	"a slot without a name and a record without a grant are refused": func(t *testing.T, s Opened) {
		for _, slot := range []tokenstore.Slot{{}, {Integration: "a"}, {Org: "b"}} {
			require.Error(t, s.Save(t.Context(), slot, Grant(), tokenstore.Version{}))
			_, err := s.Get(t.Context(), slot)
			require.Error(t, err)
			require.NotErrorIs(t, err, tokenstore.ErrNotFound, "a bug must not look like an unconnected org")
		}
		require.Error(t, s.Save(t.Context(), slotOf("acme"), &tokenstore.Record{}, tokenstore.Version{}))
	},

	"a context that has ended makes the store unavailable": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.Get(ctx, slotOf("acme"))
		require.ErrorIs(t, err, tokenstore.ErrUnavailable)
		require.ErrorIs(t, s.Save(ctx, slotOf("acme"), refreshed(rec), rec.Version()), tokenstore.ErrUnavailable)
		require.ErrorIs(t, s.Delete(ctx, slotOf("acme"), rec.Version()), tokenstore.ErrUnavailable)
		_, err = s.Acquire(ctx, slotOf("acme"), 1e9)
		require.ErrorIs(t, err, tokenstore.ErrUnavailable)
		_, err = s.Take(ctx, "id")
		require.ErrorIs(t, err, tokenstore.ErrUnavailable)
		_, err = s.Due(ctx, rec.Due, 1)
		require.ErrorIs(t, err, tokenstore.ErrUnavailable)
		for slot, entry := range s.List(ctx, "") {
			require.Zero(t, slot)
			require.ErrorIs(t, entry.Err, tokenstore.ErrUnavailable)
		}
	},
}

// trickySlots are distinct slots whose names could run into each other where keys are joined carelessly.
func trickySlots() []tokenstore.Slot {
	slots := []tokenstore.Slot{
		{Integration: "a", Org: "b"}, {Integration: "a.b", Org: "c"}, {Integration: "a", Org: "b.c"},
		{Integration: "a/b", Org: "c"}, {Integration: "a", Org: "b/c"}, {Integration: "ab", Org: "c"},
		{Integration: "a", Org: "bc"}, {Integration: "a", Org: tokenstore.Global}, {Integration: "a", Org: "global"},
		{Integration: "A", Org: "b"}, {Integration: "a", Org: "B"}, {Integration: "a:r", Org: "b"},
		{Integration: "a", Org: "{17}"}, {Integration: "a", Org: "*"}, {Integration: "a", Org: "b\x00"},
		{Integration: "a\x00", Org: "b"}, {Integration: "a", Org: "b\n"}, {Integration: "a", Org: "\xff\xfe"},
		{Integration: "a", Org: "ü"}, {Integration: "a", Org: "u\u0308"}, {Integration: "..", Org: ".."},
	}
	long := tokenstore.Org(strings.Repeat("x", 4096))
	return append(slots, tokenstore.Slot{Integration: "a", Org: long}, tokenstore.Slot{Integration: "a", Org: long + "x"})
}
