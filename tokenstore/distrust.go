package tokenstore

import (
	"bytes"
	"errors"

	"go.etcd.io/bbolt"
)

// Distrusted counts the records of a copy of a store, whose refresh tokens may have been used since it was made.
type Distrusted struct {
	Marked     int // records that are Suspect now
	Unreadable int // records that could not be marked because no key of the ring opens them
}

// distrust marks every record Suspect and forgets everything shelved: a ticket that was spent since must not be spent again, nor a
// session that ended come back. Nobody but tx may use the database.
func distrust(tx *bbolt.Tx, keys *Keyring) (found Distrusted, err error) {
	rows := tx.Bucket(bucketRows)
	for key, raw := rows.Cursor().First(); key != nil; {
		key, raw = bytes.Clone(key), bytes.Clone(raw) // what is put moves them
		next, isRecord, err := suspect(keys, key, raw)
		switch {
		case err != nil:
			found.Unreadable++
		case isRecord:
			found.Marked++
			if err := rows.Put(key, next); err != nil {
				return found, err
			}
		}
		key, raw = after(rows.Cursor(), key) // the old cursor may not be used after a Put
	}
	return found, clearShelf(tx)
}

// after returns what follows key.
func after(c *bbolt.Cursor, key []byte) (next, value []byte) {
	if next, value = c.Seek(key); bytes.Equal(next, key) {
		return c.Next()
	}
	return next, value
}

// suspect returns a row with its record marked; isRecord is false for a tombstone.
func suspect(keys *Keyring, key, raw []byte) (next []byte, isRecord bool, err error) {
	slot, ok := parseSlotKey(key)
	stored, err := decodeRow(raw)
	if !ok || err != nil {
		return nil, false, errors.Join(errors.New("its row is malformed"), err)
	}
	if stored.dead {
		return nil, false, nil
	}
	plain, err := keys.open(stored.purpose(), stored.place(slot), stored.sealed)
	if err != nil {
		return nil, false, err
	}
	rec, err := decodeRecord(plain, stored.version)
	if err != nil {
		return nil, false, err
	}
	rec.Suspect = true
	if plain, err = encodeRecord(rec); err != nil {
		return nil, false, err
	}
	stored.version.Revision++
	stored.sealed = keys.seal(stored.purpose(), stored.place(slot), plain)
	return encodeRow(stored), true, nil
}

// clearShelf removes every shelved value.
func clearShelf(tx *bbolt.Tx) error {
	var ends [][]byte
	c := tx.Bucket(bucketExpiry).Cursor()
	for key, _ := c.First(); key != nil; key, _ = c.Next() {
		if len(key) > 8 && key[8] == kindShelf {
			ends = append(ends, bytes.Clone(key))
		}
	}
	for _, end := range ends {
		if err := tx.Bucket(bucketExpiry).Delete(end); err != nil {
			return err
		}
	}
	if err := tx.DeleteBucket(bucketShelf); err != nil {
		return err
	}
	_, err := tx.CreateBucket(bucketShelf)
	return err
}
