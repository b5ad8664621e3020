package storetest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// notesOf returns the entries of a slot.
func notesOf(t *testing.T, s tokenstore.Journal, slot tokenstore.Slot) []string {
	t.Helper()
	entries, err := s.Notes(t.Context(), slot)
	require.NoError(t, err)
	var texts []string
	for _, entry := range entries {
		require.NotNil(t, entry)
		texts = append(texts, string(entry))
	}
	return texts
}

var notes = map[string]func(*testing.T, Opened){
	"entries come newest first, of their own slot alone": func(t *testing.T, s Opened) {
		require.Empty(t, notesOf(t, s, slotOf("acme")))
		for _, entry := range []string{"one", "two", "two", ""} {
			require.NoError(t, s.Note(t.Context(), slotOf("acme"), []byte(entry)))
		}
		require.NoError(t, s.Note(t.Context(), slotOf("acme2"), []byte("other")))
		require.NoError(t, s.Note(t.Context(), tokenstore.Slot{Integration: "Other", Org: "acme"}, []byte("other")))
		require.Equal(t, []string{"", "two", "two", "one"}, notesOf(t, s, slotOf("acme")))
	},

	"the last of them stay": func(t *testing.T, s Opened) {
		for n := range tokenstore.NotesKept + 7 {
			require.NoError(t, s.Note(t.Context(), slotOf("acme"), fmt.Append(nil, n)))
		}
		found := notesOf(t, s, slotOf("acme"))
		require.Len(t, found, tokenstore.NotesKept)
		require.Equal(t, "56", found[0])
		require.Equal(t, "7", found[len(found)-1])
	},

	"what is dropped leaves the store": func(t *testing.T, s Opened) {
		big := strings.Repeat("x", tokenstore.NoteSize)
		for range tokenstore.NotesKept {
			require.NoError(t, s.Note(t.Context(), slotOf("acme"), []byte(big)))
		}
		full := len(s.Dump())
		for range 2 * tokenstore.NotesKept {
			require.NoError(t, s.Note(t.Context(), slotOf("acme"), nil))
		}
		require.Less(t, len(s.Dump()), full/2)
	},

	"none of several writers' is lost": func(t *testing.T, s Opened) {
		var wg sync.WaitGroup
		for writer := range 5 {
			wg.Go(func() {
				for n := range 8 {
					if err := s.Note(t.Context(), slotOf("acme"), fmt.Append(nil, writer, "/", n)); err != nil {
						t.Errorf("note: %v", err)
					}
				}
			})
		}
		wg.Wait()
		found := notesOf(t, s, slotOf("acme"))
		require.Len(t, found, 40)
		last := map[string]string{}
		for _, entry := range found { // newest first, by each writer
			writer, n, _ := strings.Cut(entry, "/")
			if later, ok := last[writer]; ok {
				require.Less(t, n, later)
			}
			last[writer] = n
		}
	},

	"entries outlive the connection": func(t *testing.T, s Opened) {
		require.NoError(t, s.Note(t.Context(), slotOf("acme"), []byte("connect")))
		rec := saved(t, s, slotOf("acme"))
		require.NoError(t, s.Delete(t.Context(), slotOf("acme"), rec.Version()))
		require.NoError(t, s.Note(t.Context(), slotOf("acme"), []byte("disconnect")))
		saved(t, s, slotOf("acme"))
		require.Equal(t, []string{"disconnect", "connect"}, notesOf(t, s, slotOf("acme")))
	},

	"entries are no connections": func(t *testing.T, s Opened) {
		require.NoError(t, s.Note(t.Context(), slotOf("acme"), []byte("x")))
		for slot := range s.List(t.Context(), "") {
			require.Fail(t, "it lists", "%v", slot)
		}
		due, err := s.Due(t.Context(), time.Now().Add(2*tokenstore.NotesLife), 10)
		require.NoError(t, err)
		require.Empty(t, due)
		_, err = s.Get(t.Context(), slotOf("acme"))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	},

	"an entry that is too large, or has no slot, is refused": func(t *testing.T, s Opened) {
		require.Error(t, s.Note(t.Context(), slotOf("acme"), make([]byte, tokenstore.NoteSize+1)))
		require.Error(t, s.Note(t.Context(), tokenstore.Slot{Integration: "x"}, nil))
		_, err := s.Notes(t.Context(), tokenstore.Slot{Org: "x"})
		require.Error(t, err)
	},
}
