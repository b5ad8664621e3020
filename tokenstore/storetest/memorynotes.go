package storetest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// noted is an entry of the Journal.
type noted struct {
	entry []byte
	at    time.Time
}

// Note implements [tokenstore.Journal].
func (m *Memory) Note(ctx context.Context, slot tokenstore.Slot, entry []byte) error {
	if err := usable(ctx, slot); err != nil {
		return err
	}
	if len(entry) > tokenstore.NoteSize {
		return errors.New("the entry is too large")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, there := m.noted[slot]
	m.journalLocked(func() { restore(m.noted, slot, old, there) })
	next := append(slices.Clone(old), noted{append([]byte{}, entry...), time.Now()})
	m.noted[slot] = next[max(0, len(next)-tokenstore.NotesKept):]
	return nil
}

// Notes implements [tokenstore.Journal].
func (m *Memory) Notes(ctx context.Context, slot tokenstore.Slot) ([][]byte, error) {
	if err := usable(ctx, slot); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries [][]byte
	for _, n := range slices.Backward(m.noted[slot]) {
		if time.Since(n.at) <= tokenstore.NotesLife {
			entries = append(entries, slices.Clone(n.entry))
		}
	}
	return entries, nil
}
