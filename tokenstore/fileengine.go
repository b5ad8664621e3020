package tokenstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// fileEngine keeps rows and shelved values in a bbolt file, leases and the feed in memory: there is one process only.
type fileEngine struct {
	db   *bbolt.DB
	free func() (uint64, error) // bytes that may still be written where the file lies
	*leases
	*watchers
}

var _ engine = (*fileEngine)(nil)

// listPage is how many rows one read transaction of a list takes, so that the consumer never runs inside of one: it may write.
const listPage = 256

// fileRowFormat is the first byte of a stored row.
const fileRowFormat = 1

func (e *fileEngine) view(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := given(ctx); err != nil {
		return err
	}
	return e.db.View(f)
}

// given returns why ctx was given up, if it was. Deadlines are for stores that may be away. This one is here: on a machine so
// busy that a deadline passes before the work begins, doing it is quicker than failing and being asked again.
func given(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// update runs f in a transaction that is on the disk when it returns.
func (e *fileEngine) update(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := given(ctx); err != nil {
		return err
	}
	return e.db.Update(func(tx *bbolt.Tx) error {
		if err := purge(tx, time.Now()); err != nil {
			return err
		}
		return f(tx)
	})
}

func (e *fileEngine) get(ctx context.Context, slot Slot) (stored row, err error) {
	err = e.view(ctx, func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketRows).Get(slotKey(slot))
		if raw == nil {
			return ErrNotFound
		}
		stored, err = decodeRow(bytes.Clone(raw))
		return err
	})
	return stored, err
}

func (e *fileEngine) swap(ctx context.Context, slot Slot, prev Version, next row) error {
	key := slotKey(slot)
	err := e.update(ctx, func(tx *bbolt.Tx) error {
		var stored *row
		free := false
		if raw := tx.Bucket(bucketRows).Get(key); raw != nil {
			old, err := decodeRow(raw)
			if err != nil && prev != malformed {
				return err
			}
			free = prev == malformed && (err != nil || old.dead)
			if err == nil { // what the indexes say of a malformed row is not believed, see due and purgeOne
				stored = &old
			}
		}
		if !free && !replaceable(stored, prev, next.version) {
			return ErrConflict
		}
		if stored != nil {
			if err := unindexRow(tx, key, *stored); err != nil {
				return err
			}
		}
		return errors.Join(indexRow(tx, key, next), tx.Bucket(bucketRows).Put(key, encodeRow(next)))
	})
	if err == nil {
		e.publish(slot)
	}
	return err
}

func (e *fileEngine) list(ctx context.Context, integration string) iter.Seq2[Slot, rowEntry] {
	return e.walk(ctx, func(slot Slot) bool {
		return integration == "" || slot.Integration == integration
	})
}

// walk yields the rows of the slots that want says, in the order of their keys. The memory that the file takes meanwhile is given back.
func (e *fileEngine) walk(ctx context.Context, want func(Slot) bool) iter.Seq2[Slot, rowEntry] {
	type walked struct {
		slot  Slot
		entry rowEntry
	}
	return func(yield func(Slot, rowEntry) bool) {
		defer e.letGo(ctx)
		var after []byte
		for {
			var page []walked
			more := false
			err := e.view(ctx, func(tx *bbolt.Tx) error {
				c := tx.Bucket(bucketRows).Cursor()
				key, raw := c.Seek(after)
				if bytes.Equal(key, after) && after != nil {
					key, raw = c.Next()
				}
				for n := 0; key != nil && n < listPage; key, raw = c.Next() {
					n++
					after, more = bytes.Clone(key), n == listPage
					slot, ok := parseSlotKey(after)
					if !ok {
						continue
					}
					stored, err := decodeRow(bytes.Clone(raw))
					if want(slot) {
						page = append(page, walked{slot, rowEntry{stored, err}})
					}
				}
				return nil
			})
			if err != nil {
				yield(Slot{}, rowEntry{err: err})
				return
			}
			for _, w := range page {
				if !yield(w.slot, w.entry) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// letGo has the process not hold the whole file because somebody has read it all. A transaction keeps the mapping where it is.
func (e *fileEngine) letGo(ctx context.Context) {
	_ = e.view(ctx, func(tx *bbolt.Tx) error { return letGo(e.db.Info().Data, tx.Size()) }) // it costs memory, at worst
}

func (e *fileEngine) due(ctx context.Context, now int64, limit int) (slots []Slot, err error) {
	err = e.view(ctx, func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketDue).Cursor()
		for key, _ := c.First(); key != nil && len(slots) < limit; key, _ = c.Next() {
			if int64(binary.BigEndian.Uint64(key)) > now {
				break
			}
			stored, err := decodeRow(tx.Bucket(bucketRows).Get(key[8:]))
			if err == nil && (stored.dead || !bytes.Equal(timeKey(stored.due, key[8:]), key)) {
				continue // left behind by a damaged row
			}
			if slot, ok := parseSlotKey(bytes.Clone(key[8:])); ok {
				slots = append(slots, slot)
			}
		}
		return nil
	})
	return slots, err
}

// indexKey is where a row is found by time: a record when it is due, a tombstone when it ends.
func indexKey(key []byte, r row) (bucket, at []byte) {
	if r.dead {
		return bucketExpiry, expiryKey(r.due, kindRow, key)
	}
	return bucketDue, timeKey(r.due, key)
}

func indexRow(tx *bbolt.Tx, key []byte, r row) error {
	if r.due == 0 {
		return nil
	}
	bucket, at := indexKey(key, r)
	return tx.Bucket(bucket).Put(at, nil)
}

func unindexRow(tx *bbolt.Tx, key []byte, r row) error {
	bucket, at := indexKey(key, r)
	return tx.Bucket(bucket).Delete(at)
}

// timeKey orders by time first. Times are never negative.
func timeKey(ms int64, key []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(ms)), key...)
}

// slotKey is injective: no two slots have the same key, whatever bytes are in their names.
func slotKey(slot Slot) []byte {
	return appendParts(nil, []byte(slot.Integration), []byte(slot.Org))
}

func parseSlotKey(key []byte) (Slot, bool) {
	integration, rest, ok := cutPart(key)
	if !ok {
		return Slot{}, false
	}
	org, rest, ok := cutPart(rest)
	return Slot{string(integration), Org(org)}, ok && len(rest) == 0
}

// encodeRow writes format, kind, grant, generation, revision, due and the sealed rest.
func encodeRow(r row) []byte {
	kind := byte(0)
	if r.dead {
		kind = 1
	}
	b := appendParts([]byte{fileRowFormat, kind}, []byte(r.version.Grant))
	for _, n := range []int64{r.version.Generation, r.version.Revision, r.due} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, r.sealed...)
}

// decodeRow keeps parts of raw.
func decodeRow(raw []byte) (row, error) {
	unreadable := &UnreadableError{Stored: malformed, Reason: "its row is malformed"}
	if len(raw) < 2 || raw[0] != fileRowFormat || raw[1] > 1 {
		return row{}, unreadable
	}
	grant, rest, ok := cutPart(raw[2:])
	if !ok || len(rest) < 24 || !slices.Equal(appendParts(nil, grant), raw[2:len(raw)-len(rest)]) {
		return row{}, unreadable
	}
	number := func(i int) int64 { return int64(binary.BigEndian.Uint64(rest[8*i:])) }
	return row{
		version: Version{GrantID(grant), number(0), number(1)},
		due:     number(2),
		dead:    raw[1] == 1,
		sealed:  rest[24:],
	}, nil
}
