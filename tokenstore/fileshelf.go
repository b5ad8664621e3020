package tokenstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"go.etcd.io/bbolt"
)

// purgeLimit bounds how many expired things one write removes; every write adds at most one.
const purgeLimit = 64

// Kinds of things that expire.
const (
	kindRow   byte = 'r'
	kindShelf byte = 's'
	kindNote  byte = 'n'
)

func (e *fileEngine) put(ctx context.Context, id [32]byte, sealed []byte, life time.Duration) error {
	return e.update(ctx, func(tx *bbolt.Tx) error {
		if err := unshelve(tx, id); err != nil {
			return err
		}
		end := time.Now().Add(life).UnixMilli()
		return errors.Join(
			tx.Bucket(bucketExpiry).Put(expiryKey(end, kindShelf, id[:]), nil),
			tx.Bucket(bucketShelf).Put(id[:], append(binary.BigEndian.AppendUint64(nil, uint64(end)), sealed...)),
		)
	})
}

func (e *fileEngine) take(ctx context.Context, id [32]byte) (sealed []byte, err error) {
	// Look first: guessed ids must not cost a write each.
	found, err := e.peek(ctx, id)
	if err != nil {
		return nil, err
	}
	if found[0] == nil {
		return nil, ErrNotFound
	}
	err = e.update(ctx, func(tx *bbolt.Tx) error {
		if sealed = shelved(tx, id); sealed == nil {
			return ErrNotFound
		}
		return unshelve(tx, id)
	})
	return sealed, err
}

func (e *fileEngine) peek(ctx context.Context, ids ...[32]byte) ([][]byte, error) {
	values := make([][]byte, len(ids))
	err := e.view(ctx, func(tx *bbolt.Tx) error {
		for i, id := range ids {
			values[i] = shelved(tx, id)
		}
		return nil
	})
	return values, err
}

// shelved returns a copy of the value under id, nil if there is none or its time is over.
func shelved(tx *bbolt.Tx, id [32]byte) []byte {
	raw := tx.Bucket(bucketShelf).Get(id[:])
	if len(raw) < 8 || int64(binary.BigEndian.Uint64(raw)) <= time.Now().UnixMilli() {
		return nil
	}
	return bytes.Clone(raw[8:])
}

// unshelve removes the value under id with its index entry.
func unshelve(tx *bbolt.Tx, id [32]byte) error {
	raw := tx.Bucket(bucketShelf).Get(id[:])
	if len(raw) < 8 {
		return nil
	}
	end := int64(binary.BigEndian.Uint64(raw))
	return errors.Join(tx.Bucket(bucketExpiry).Delete(expiryKey(end, kindShelf, id[:])), tx.Bucket(bucketShelf).Delete(id[:]))
}

func expiryKey(ms int64, kind byte, key []byte) []byte {
	return timeKey(ms, append([]byte{kind}, key...))
}

// purge removes shelved values, entries and tombstones whose time is over, the oldest first.
func purge(tx *bbolt.Tx, now time.Time) error {
	var over [][]byte
	c := tx.Bucket(bucketExpiry).Cursor()
	for key, _ := c.First(); key != nil && len(over) < purgeLimit; key, _ = c.Next() {
		if int64(binary.BigEndian.Uint64(key)) > now.UnixMilli() {
			break
		}
		over = append(over, bytes.Clone(key))
	}
	for _, key := range over {
		if err := errors.Join(purgeOne(tx, key[8], key[9:], now), tx.Bucket(bucketExpiry).Delete(key)); err != nil {
			return err
		}
	}
	return nil
}

// purgeOne removes what an index entry says is over. A row says it itself: after damage the entry may be another's, and a live
// record must not disappear.
func purgeOne(tx *bbolt.Tx, kind byte, key []byte, now time.Time) error {
	switch kind {
	case kindNote:
		return tx.Bucket(bucketNotes).Delete(key)
	case kindRow:
	default:
		return tx.Bucket(bucketShelf).Delete(key)
	}
	stored, err := decodeRow(tx.Bucket(bucketRows).Get(key))
	if err != nil || !stored.over(now) {
		return nil
	}
	return tx.Bucket(bucketRows).Delete(key)
}
