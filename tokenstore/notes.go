package tokenstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

// Journal keeps what was done with each connection, beside its record and beyond it: a disconnect and a new grant leave it as it
// is. Entries are sealed with their Slot as associated data.
type Journal interface {
	// Note adds an entry of at most NoteSize bytes to the slot's. Those of several replicas lose none of each other's.
	Note(ctx context.Context, slot Slot, entry []byte) error
	// Notes returns the slot's last entries, newest first, NotesKept of them at most and none older than NotesLife; nil for each
	// that cannot be read.
	Notes(ctx context.Context, slot Slot) ([][]byte, error)
}

// The bounds of a Journal.
const (
	NotesKept = 50
	NotesLife = 400 * 24 * time.Hour // a year, and what is left of the month in which somebody asks
	NoteSize  = 4 << 10
)

// diary keeps opaque entries.
type diary interface {
	// addNote adds an entry, drops those before the last NotesKept, and lets everything go NotesLife later.
	addNote(ctx context.Context, slot Slot, sealed []byte) error
	notes(ctx context.Context, slot Slot) ([][]byte, error) // newest first
	// noted returns every slot that has entries from the beginning to the end of the call.
	noted(ctx context.Context) ([]Slot, error)
	// renote replaces an entry where it stands; ErrConflict if it is not there.
	renote(ctx context.Context, slot Slot, old, next []byte) error
}

func (v *vault) Note(ctx context.Context, slot Slot, entry []byte) (err error) {
	defer v.metrics.observe("note", time.Now(), &err)
	if err := checkSlot(slot); err != nil {
		return wrap("note", slot, err)
	}
	if len(entry) > NoteSize {
		return wrap("note", slot, fmt.Errorf("%w: an entry of %d bytes", errInvalid, len(entry)))
	}
	// The time is sealed too: what is over stays over, whatever the store does with it.
	plain := binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixMilli()))
	v.sealing.RLock()
	defer v.sealing.RUnlock()
	if err := v.diary.addNote(ctx, slot, v.ring.Load().seal(purposeNote, slotKey(slot), append(plain, entry...))); err != nil {
		return wrap("note", slot, err)
	}
	return nil
}

func (v *vault) Notes(ctx context.Context, slot Slot) (_ [][]byte, err error) {
	defer v.metrics.observe("notes", time.Now(), &err)
	if err := checkSlot(slot); err != nil {
		return nil, wrap("notes", slot, err)
	}
	sealed, err := v.diary.notes(ctx, slot)
	if err != nil {
		return nil, wrap("notes", slot, err)
	}
	since := time.Now().Add(-NotesLife).UnixMilli()
	var entries [][]byte
	for _, envelope := range sealed[:min(len(sealed), NotesKept)] {
		plain, err := v.ring.Load().open(purposeNote, slotKey(slot), envelope)
		switch {
		case err != nil || len(plain) < 8:
			entries = append(entries, nil)
		case int64(binary.BigEndian.Uint64(plain)) >= since:
			entries = append(entries, plain[8:])
		}
	}
	return entries, nil
}

// rekeyNotes passes over what does not open: nobody can mend it, and it ends by itself.
func (v *vault) rekeyNotes(ctx context.Context, keys *Keyring, walk *rekeyed) error {
	slots, err := v.diary.noted(ctx)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		entries, err := v.diary.notes(ctx, slot)
		if err != nil {
			return err
		}
		for _, old := range entries {
			plain, err := keys.open(purposeNote, slotKey(slot), old)
			if key, _ := keyOf(old); err != nil || key == keys.first {
				continue
			}
			err = v.sealAnew(keys, purposeNote, slotKey(slot), plain, func(next []byte) error { return v.diary.renote(ctx, slot, old, next) })
			if err := walk.count(&walk.noted, err); err != nil {
				return err
			}
		}
	}
	return nil
}
