package tokenstore

import (
	"bytes"
	"context"
	"iter"

	"go.etcd.io/bbolt"
)

func (e *fileEngine) every(ctx context.Context) iter.Seq2[Slot, rowEntry] {
	return e.walk(ctx, func(Slot) bool { return true })
}

func (e *fileEngine) reseal(ctx context.Context, slot Slot, old, next []byte) error {
	key := slotKey(slot)
	return e.update(ctx, func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketRows).Get(key)
		if raw == nil {
			return ErrConflict // a tombstone that has ended
		}
		stored, err := decodeRow(raw)
		if err != nil || !bytes.Equal(stored.sealed, old) {
			return ErrConflict
		}
		stored.sealed = next
		return tx.Bucket(bucketRows).Put(key, encodeRow(stored))
	})
}

func (e *fileEngine) shelved(ctx context.Context) (ids [][32]byte, err error) {
	err = e.view(ctx, func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketShelf).ForEach(func(key, _ []byte) error {
			if len(key) == 32 {
				ids = append(ids, [32]byte(key))
			}
			return nil
		})
	})
	return ids, err
}

func (e *fileEngine) reshelve(ctx context.Context, id [32]byte, old, next []byte) error {
	return e.update(ctx, func(tx *bbolt.Tx) error {
		if !bytes.Equal(shelved(tx, id), old) {
			return ErrConflict
		}
		shelf := tx.Bucket(bucketShelf)
		return shelf.Put(id[:], append(bytes.Clone(shelf.Get(id[:])[:8]), next...))
	})
}

func (e *fileEngine) check(ctx context.Context) (id string, record []byte, err error) {
	err = e.view(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		id, record = string(meta.Get(metaID)), bytes.Clone(meta.Get(metaCheck))
		return nil
	})
	return id, record, err
}

func (e *fileEngine) recheck(ctx context.Context, old, next []byte) error {
	return e.update(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if !bytes.Equal(meta.Get(metaCheck), old) {
			return ErrConflict
		}
		return meta.Put(metaCheck, next)
	})
}
