package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var lists = map[string]func(*testing.T, Opened){
	"a list yields every record once": func(t *testing.T, s Opened) {
		const many = 300 // more than one page
		stored := map[tokenstore.Slot]*tokenstore.Record{}
		for i := range many {
			slot := slotOf(fmt.Sprint("org-", i))
			stored[slot] = saved(t, s, slot)
		}
		for slot, entry := range s.List(t.Context(), "") {
			require.NoError(t, entry.Err)
			require.Equal(t, stored[slot], entry.Record, "%v", slot)
			delete(stored, slot)
		}
		require.Empty(t, stored)
	},

	"a list of one integration yields no other's": func(t *testing.T, s Opened) {
		mine := slotOf("acme")
		saved(t, s, mine)
		saved(t, s, tokenstore.Slot{Integration: mine.Integration + "2", Org: "acme"})
		saved(t, s, tokenstore.Slot{Integration: mine.Integration[:5], Org: "acme"})
		var listed []tokenstore.Slot
		for slot, entry := range s.List(t.Context(), mine.Integration) {
			require.NoError(t, entry.Err)
			listed = append(listed, slot)
		}
		require.Equal(t, []tokenstore.Slot{mine}, listed)
	},

	"a list of nothing is empty": func(t *testing.T, s Opened) {
		for slot, entry := range s.List(t.Context(), "") {
			t.Errorf("listed %v %v", slot, entry.Err)
		}
	},

	"a list can be left early": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		saved(t, s, slotOf("globex"))
		n := 0
		for range s.List(t.Context(), "") {
			n++
			break
		}
		require.Equal(t, 1, n)
	},

	"the consumer of a list may write": func(t *testing.T, s Opened) {
		saved(t, s, slotOf("acme"))
		saved(t, s, slotOf("globex"))
		for slot, entry := range s.List(t.Context(), "") {
			require.NoError(t, entry.Err)
			require.NoError(t, s.Save(t.Context(), slot, refreshed(entry.Record), entry.Record.Version()))
		}
		for _, entry := range s.List(t.Context(), "") {
			require.EqualValues(t, 2, entry.Record.Generation)
		}
	},

	"due slots come longest due first, at most as many as asked for": func(t *testing.T, s Opened) {
		now := time.Now().Truncate(time.Millisecond)
		for i, org := range []string{"third", "first", "later", "second", "never"} {
			rec := Grant()
			rec.Due = now.Add([]time.Duration{0, -time.Hour, time.Millisecond, -time.Minute, 0}[i])
			if org == "never" {
				rec.Due = time.Time{}
			}
			require.NoError(t, s.Save(t.Context(), slotOf(org), rec, tokenstore.Version{}))
		}
		due := func(now time.Time, limit int) []tokenstore.Slot {
			slots, err := s.Due(t.Context(), now, limit)
			require.NoError(t, err)
			return slots
		}
		first, second, third, later := slotOf("first"), slotOf("second"), slotOf("third"), slotOf("later")
		require.Equal(t, []tokenstore.Slot{first, second, third}, due(now, 10))
		require.Equal(t, []tokenstore.Slot{first, second}, due(now, 2))
		require.Equal(t, []tokenstore.Slot{first, second, third, later}, due(now.Add(time.Hour), 10))
		require.Empty(t, due(now.Add(-2*time.Hour), 10))
		require.Empty(t, due(now, 0))
	},

	"a record is never due early by a fraction of a millisecond": func(t *testing.T, s Opened) {
		rec := Grant()
		rec.Due = time.Now().Truncate(time.Millisecond).Add(500 * time.Microsecond)
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), rec, tokenstore.Version{}))
		slots, err := s.Due(t.Context(), rec.Due.Add(-time.Microsecond), 10)
		require.NoError(t, err)
		require.Empty(t, slots)
		slots, err = s.Due(t.Context(), rec.Due.Add(time.Millisecond), 10)
		require.NoError(t, err)
		require.Len(t, slots, 1)
	},

	"a save moves a slot in the order": func(t *testing.T, s Opened) {
		rec := saved(t, s, slotOf("acme"))
		now := rec.Due
		next := refreshed(rec)
		next.Due = now.Add(time.Hour)
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), next, rec.Version()))
		slots, err := s.Due(t.Context(), now, 10)
		require.NoError(t, err)
		require.Empty(t, slots)
		never := refreshed(next)
		never.Due = time.Time{}
		require.NoError(t, s.Save(t.Context(), slotOf("acme"), never, next.Version()))
		slots, err = s.Due(t.Context(), now.Add(1000*time.Hour), 10)
		require.NoError(t, err)
		require.Empty(t, slots)
	},
}
