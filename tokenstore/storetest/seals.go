package storetest

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var seals = map[string]func(*testing.T, Opened){
	"nothing secret is stored in the clear": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		deleted := saved(t, s, slotOf("globex"))
		require.NoError(t, s.Delete(t.Context(), slotOf("globex"), deleted.Version()))
		require.NoError(t, s.Put(t.Context(), "CANARY-id", []byte("CANARY-value"), time.Minute))
		dump := s.Dump()
		require.NotEmpty(t, dump)
		require.NotContains(t, string(dump), "CANARY")
		require.True(t, bytes.Contains(dump, []byte("test")), "the dump holds the sealed values with their key id")
	},

	"no flipped bit goes unnoticed, and the record is left untouched": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		noFlipGoesUnnoticed(t, s)
	},

	"no flipped bit makes a tombstone disappear or a record look deleted": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		noFlipGoesUnnoticed(t, s)
	},

	"a record moved to another slot does not open": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		saved(t, s, slotOf("globex"))
		acme, globex := s.Row(slotOf("acme")), s.Row(slotOf("globex"))
		s.SetRow(slotOf("acme"), globex)
		s.SetRow(slotOf("globex"), acme)
		for _, slot := range []tokenstore.Slot{slotOf("acme"), slotOf("globex")} {
			_, err := s.Get(t.Context(), slot)
			require.ErrorIs(t, err, tokenstore.ErrUnreadable)
		}
	},

	"a record that cannot be read is listed as such beside the others": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		rec := saved(t, s, slotOf("globex"))
		s.SetRow(slotOf("acme"), s.Row(slotOf("globex")))
		listed := map[tokenstore.Slot]tokenstore.Entry{}
		for slot, entry := range s.List(t.Context(), "") {
			listed[slot] = entry
		}
		require.Len(t, listed, 2)
		require.Equal(t, rec, listed[slotOf("globex")].Record)
		require.Nil(t, listed[slotOf("acme")].Record)
		require.ErrorIs(t, listed[slotOf("acme")].Err, tokenstore.ErrUnreadable)
	},

	"a record that cannot be read gives way only to who names its version": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		fields := s.Row(slotOf("acme"))
		last := fields[len(fields)-1]
		last[len(last)-1] ^= 1
		s.SetRow(slotOf("acme"), fields)
		_, err := s.Get(t.Context(), slotOf("acme"))
		unreadable, is := errors.AsType[*tokenstore.UnreadableError](err)
		require.True(t, is)
		require.ErrorIs(t, s.Save(t.Context(), slotOf("acme"), Grant(), tokenstore.Version{}), tokenstore.ErrConflict)
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), Grant(), unreadable.Stored))
		_, err = s.Get(t.Context(), slotOf("acme"))
		require.NoError(t, err)
	},
}

// noFlipGoesUnnoticed flips a bit of every byte of the row of acme.
func noFlipGoesUnnoticed(t *testing.T, s Opened) {
	t.Helper()
	slot := slotOf("acme")
	_, before := s.Get(t.Context(), slot)
	fields := s.Row(slot)
	for i, field := range fields {
		for j := range field {
			field[j] ^= 1 << (j % 8)
			s.SetRow(slot, fields)
			_, err := s.Get(t.Context(), slot)
			require.ErrorIs(t, err, tokenstore.ErrUnreadable, "field %d byte %d", i, j)
			require.NotErrorIs(t, err, tokenstore.ErrNotFound)
			require.Equal(t, fields, s.Row(slot), "it is left untouched")
			field[j] ^= 1 << (j % 8)
		}
	}
	s.SetRow(slot, fields)
	_, err := s.Get(t.Context(), slot)
	require.Equal(t, before, err, "the original still opens")
}
