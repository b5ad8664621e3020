package tokenstore

import (
	"context"

	"go.etcd.io/bbolt"
)

// What the tests reach behind the back of a File.
func (f *File) DB() *bbolt.DB { return f.db }

var (
	SlotKey    = slotKey
	BucketRows = bucketRows
)

// RedisRow is the key of a slot's row.
func RedisRow(slot Slot) string {
	at, name := locate(slot)
	return at.row(name)
}

var RowFields = rowFields

// Sealed returns the sealed bytes of a slot's row.
func Sealed(ctx context.Context, b Backend, slot Slot) ([]byte, error) {
	stored, err := b.(*vault).rows.get(ctx, slot)
	return stored.sealed, err
}

// Reseal replaces the sealed bytes of a slot's row if they are old.
func Reseal(ctx context.Context, b Backend, slot Slot, old, next []byte) error {
	return b.(*vault).sealed.reseal(ctx, slot, old, next)
}

// SetFree replaces what a File believes to be free on its file system.
func (f *File) SetFree(free func() (uint64, error)) { f.engine.free = free }

// SealedNotes returns the sealed entries of a slot, newest first.
func SealedNotes(ctx context.Context, b Backend, slot Slot) ([][]byte, error) {
	return b.(*vault).diary.notes(ctx, slot)
}

// ReplaceNote puts one sealed entry of a slot in another's place.
func ReplaceNote(ctx context.Context, b Backend, slot Slot, old, next []byte) error {
	return b.(*vault).diary.renote(ctx, slot, old, next)
}

var BucketNotes = bucketNotes

// RedisNotes is the key of a slot's entries.
func RedisNotes(slot Slot) string {
	at, name := locate(slot)
	return at.notes(name)
}

// AddNote adds a sealed entry.
func AddNote(ctx context.Context, b Backend, slot Slot, sealed []byte) error {
	return b.(*vault).diary.addNote(ctx, slot, sealed)
}
