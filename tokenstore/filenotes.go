package tokenstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// An entry's key is its slot's and a number that grows. No slot's key begins with another's.
func noteKey(slot Slot, n uint64) []byte { return binary.BigEndian.AppendUint64(slotKey(slot), n) }

func (e *fileEngine) addNote(ctx context.Context, slot Slot, sealed []byte) error {
	return e.update(ctx, func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketNotes)
		n, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		key, end := noteKey(slot, n), time.Now().Add(NotesLife).UnixMilli()
		if err := errors.Join(
			tx.Bucket(bucketExpiry).Put(expiryKey(end, kindNote, key), nil),
			bucket.Put(key, append(binary.BigEndian.AppendUint64(nil, uint64(end)), sealed...)),
		); err != nil {
			return err
		}
		keys, _ := notesOf(tx, slot)
		for _, over := range keys[:max(0, len(keys)-NotesKept)] {
			raw := bucket.Get(over)
			if err := errors.Join(
				tx.Bucket(bucketExpiry).Delete(expiryKey(int64(binary.BigEndian.Uint64(raw)), kindNote, over)), bucket.Delete(over),
			); err != nil {
				return err
			}
		}
		return nil
	})
}

func (e *fileEngine) notes(ctx context.Context, slot Slot) (entries [][]byte, err error) {
	err = e.view(ctx, func(tx *bbolt.Tx) error {
		_, entries = notesOf(tx, slot)
		return nil
	})
	slices.Reverse(entries)
	return entries, err
}

// notesOf returns copies of the keys and the sealed entries of a slot, oldest first.
func notesOf(tx *bbolt.Tx, slot Slot) (keys, entries [][]byte) {
	prefix := slotKey(slot)
	c := tx.Bucket(bucketNotes).Cursor()
	for key, raw := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, raw = c.Next() {
		if len(raw) >= 8 {
			keys, entries = append(keys, bytes.Clone(key)), append(entries, bytes.Clone(raw[8:]))
		}
	}
	return keys, entries
}

func (e *fileEngine) noted(ctx context.Context) (slots []Slot, err error) {
	err = e.view(ctx, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNotes).ForEach(func(key, _ []byte) error {
			slot, ok := parseSlotKey(key[:max(0, len(key)-8)])
			if ok && (len(slots) == 0 || slots[len(slots)-1] != slot) {
				slots = append(slots, slot)
			}
			return nil
		})
	})
	return slots, err
}

func (e *fileEngine) renote(ctx context.Context, slot Slot, old, next []byte) error {
	return e.update(ctx, func(tx *bbolt.Tx) error {
		keys, entries := notesOf(tx, slot)
		i := slices.IndexFunc(entries, func(entry []byte) bool { return bytes.Equal(entry, old) })
		if i < 0 {
			return ErrConflict
		}
		bucket := tx.Bucket(bucketNotes)
		return bucket.Put(keys[i], append(bytes.Clone(bucket.Get(keys[i])[:8]), next...))
	})
}
