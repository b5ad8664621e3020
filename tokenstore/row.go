package tokenstore

import (
	"context"
	"encoding/binary"
	"iter"
	"time"
)

// row is what a store keeps of one Slot: outside, what must be compared and ordered without a key; inside, all else, sealed.
// The outside is bound to the inside as associated data, so that it cannot be changed alone.
type row struct {
	version Version
	due     int64 // Unix ms; a record's next look (0: never), a tombstone's end
	dead    bool  // a tombstone
	sealed  []byte
}

// rows keeps opaque rows. An engine's errors match the package's sentinels where one applies; the vault makes
// ErrUnavailable of every other.
type rows interface {
	// get returns the row of the slot, a tombstone as well, or ErrNotFound.
	get(ctx context.Context, slot Slot) (row, error)
	// swap puts next in the slot if replaceable says so, publishes the slot, and returns ErrConflict otherwise.
	swap(ctx context.Context, slot Slot, prev Version, next row) error
	// list yields every row, genuine tombstones or not, which only the vault can tell. Those that stand in no index may be left
	// out. The consumer may call any method meanwhile.
	list(ctx context.Context, integration string) iter.Seq2[Slot, rowEntry]
	// due returns the slots whose row is due, the longest due first.
	due(ctx context.Context, now int64, limit int) ([]Slot, error)
}

// rowEntry is a row of a list or why there is none; an error with a zero Slot ends the list.
type rowEntry struct {
	row row
	err error
}

// cubby keeps opaque values under hashed ids for a while.
type cubby interface {
	put(ctx context.Context, id [32]byte, sealed []byte, life time.Duration) error
	take(ctx context.Context, id [32]byte) ([]byte, error)       // ErrNotFound
	peek(ctx context.Context, ids ...[32]byte) ([][]byte, error) // nil for each that is not there
}

// replaceable is the rule of compare-and-swap; the Redis script says the same in Lua. A tombstone gives way to a new grant
// only: whatever was in flight for the grant that it buried stays out.
func replaceable(stored *row, prev, next Version) bool {
	switch {
	case stored == nil:
		return prev == Version{}
	case stored.dead:
		return prev == Version{} && next.Grant != stored.version.Grant
	default:
		return prev == stored.version
	}
}

// over says that a row is a tombstone that has ended, though it is still there.
func (r row) over(now time.Time) bool { return r.dead && r.due <= now.UnixMilli() }

// place is the associated data of a row: where it lies and everything outside the seal.
func (r row) place(slot Slot) []byte {
	b := appendParts(nil, []byte(slot.Integration), []byte(slot.Org), []byte(r.version.Grant))
	b = binary.BigEndian.AppendUint64(b, uint64(r.version.Generation))
	b = binary.BigEndian.AppendUint64(b, uint64(r.version.Revision))
	return binary.BigEndian.AppendUint64(b, uint64(r.due))
}

// purpose is the one that the row is sealed for: a live record does not open as a tombstone.
func (r row) purpose() purpose {
	if r.dead {
		return purposeTombstone
	}
	return purposeRecord
}

// dueMilli rounds a Record's Due up to the millisecond, so that it is never early; 0 is never.
func dueMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.Add(time.Millisecond-1).UnixMilli())
}
