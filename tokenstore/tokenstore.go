// Package tokenstore remembers connections, sealed, for all replicas.
//
// A [Store] keeps one [Record] per [Slot]. Beside it stand a [Locker] (a lease per Slot), a [Shelf] (things kept for
// minutes and taken once), a [Feed] (a hint that a Slot changed) and a [Journal] (what was done with a Slot). [File] implements
// all on one machine, [Redis] for any number of replicas. Both write nothing but ciphertext: every record, shelved value and
// entry is sealed by a [Keyring] with its Slot (or id) and purpose as associated data, so that bytes moved from one org to another do not open.
//
// Inside, one vault seals and opens; an engine below it, in bbolt or in Redis, keeps opaque rows and knows no key.
package tokenstore

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Errors that callers decide on. Implementations wrap them; test with errors.Is.
var (
	// ErrNotFound says that the Slot has no record, or that the shelf holds nothing under the id.
	ErrNotFound = errors.New("not found")
	// ErrDeleted says that a tombstone stands in the Slot. It matches ErrNotFound too.
	ErrDeleted error = deletedError{}
	// ErrConflict says that the record is not at the version that the caller read: read again and decide anew.
	ErrConflict = errors.New("the record has changed")
	// ErrHeld says that another holder has the lease.
	ErrHeld = errors.New("the lease is held by another")
	// ErrUnreadable says that a record cannot be decrypted or parsed. The store leaves it untouched.
	ErrUnreadable = errors.New("the record cannot be read")
	// ErrUnavailable says that the store could not be reached in time. A write that returns it may have happened.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrClock says that this machine's clock is too far from the store's for a lease. It matches ErrUnavailable too, although the
	// store answers.
	ErrClock error = clockError{}
	// ErrWrongKey says that no key of the ring opens the store's key-check record.
	ErrWrongKey = errors.New("no encryption key opens this store: the key that sealed it must be among them")
	// ErrInUse says that another process has the store file open.
	ErrInUse = errors.New("another process has the store open")
)

type deletedError struct{}

func (deletedError) Error() string        { return "deleted" }
func (deletedError) Is(target error) bool { return target == ErrNotFound }

type clockError struct{}

func (clockError) Error() string        { return "this machine's clock and the store's are too far apart" }
func (clockError) Is(target error) bool { return target == ErrUnavailable }

// UnreadableError is the ErrUnreadable of a record. It says at which version the record stands, so that an operator's new
// grant or disconnect can replace it deliberately; nothing else may.
type UnreadableError struct {
	Stored Version // what Save and Delete compare, also where not even the version can be read
	Reason string  // without anything of the content
}

func (e *UnreadableError) Error() string { return ErrUnreadable.Error() + ": " + e.Reason }

// malformed is the version of what has none that can be read, and of a forged tombstone. No row is saved at it.
var malformed = Version{Revision: -1}

// Is matches ErrUnreadable.
func (e *UnreadableError) Is(target error) bool { return target == ErrUnreadable }

// Org names a tenant. The zero Org is a bug, never a default.
type Org string

// Global is the Org of an integration's global connection. No real org can be spelled so.
const Global Org = "@global"

// maxOrg is the longest name of an org, in bytes.
const maxOrg = 128

// Valid reports whether o can name a tenant: ^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$, byte for byte, with nothing trimmed or folded. Global
// cannot.
func (o Org) Valid() bool {
	if o == "" || len(o) > maxOrg {
		return false
	}
	for i := range len(o) {
		c := o[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '-') {
			return false
		}
	}
	return true
}

// Slot is a connection's key. It is always compared as a struct; its String is for people and logs only.
type Slot struct {
	Integration string
	Org         Org
}

// String returns "integration/org".
func (s Slot) String() string { return s.Integration + "/" + string(s.Org) }

// GrantID is random and new with every consent.
type GrantID string

// Version is what Save compares. The zero Version means "no record".
type Version struct {
	Grant      GrantID
	Generation int64
	Revision   int64
}

// Store keeps Records by Slot. All methods may be called concurrently. Errors match the package's sentinels.
type Store interface {
	// Get returns the record, ErrNotFound, ErrDeleted, ErrUnreadable (an [*UnreadableError]) or ErrUnavailable. The caller
	// owns the record; its times are in UTC.
	Get(ctx context.Context, slot Slot) (*Record, error)
	// Save stores rec if the stored version equals prev (zero: no record, or a tombstone of a grant other than
	// rec.Grant), sets rec.Revision to the stored one and publishes the Slot on the Feed. It returns ErrConflict otherwise.
	// A nil error means durable. After ErrUnavailable the write may have happened: Get and compare rec.Write.
	Save(ctx context.Context, slot Slot, rec *Record, prev Version) error
	// Delete replaces the record by a tombstone that lasts TombstoneLife, if the stored version equals prev, and publishes
	// the Slot. It returns ErrConflict otherwise, also when there is nothing to delete.
	Delete(ctx context.Context, slot Slot, prev Version) error
	// List yields every connection of an integration (empty: of all), tombstones left out, in no particular order. A record that cannot be read comes with
	// a nil Record and an ErrUnreadable; an error with a zero Slot ends the sequence.
	List(ctx context.Context, integration string) iter.Seq2[Slot, Entry]
	// Due returns at most limit Slots whose Record.Due is set and not after now, the longest due first, to the millisecond.
	Due(ctx context.Context, now time.Time, limit int) ([]Slot, error)
}

// Entry is one connection of a List: a record, or why there is none.
type Entry struct {
	Record *Record
	Err    error
}

// TombstoneLife is how long a deleted connection refuses to be resurrected by what was in flight.
const TombstoneLife = 30 * 24 * time.Hour

// Locker gives out one lease per Slot at a time, across all replicas.
type Locker interface {
	// Acquire returns the lease, ErrHeld, ErrUnavailable or ErrClock. Its Fence is higher than that of every earlier lease of the Slot.
	Acquire(ctx context.Context, slot Slot, ttl time.Duration) (Lease, error)
	// Renew extends a lease that is still ours to ttl from now; ErrHeld if it is not ours any more.
	Renew(ctx context.Context, lease Lease, ttl time.Duration) (Lease, error)
	// Release ends the lease if it is still ours, and does nothing otherwise.
	Release(ctx context.Context, lease Lease) error
}

// Lease is the right to refresh one Slot until Expires, by the holder's own clock.
type Lease struct {
	Slot    Slot
	Owner   string // random per Acquire
	Fence   int64
	Expires time.Time // a bound on the safe side: counted from before the request was sent
	// Since is when the store began to be the one that it is: it was started then, or a replica took over, and what was
	// acknowledged shortly before, an Intent or a newer token, may be lost. Zero: the store loses nothing that it acknowledged.
	Since time.Time
}

// Shelf keeps small values for minutes (states, tickets, sessions). The ids are secrets: a Shelf stores only their
// SHA-256, and the values sealed.
type Shelf interface {
	// Put stores value under id for life, replacing what was there.
	Put(ctx context.Context, id string, value []byte, life time.Duration) error
	// Take removes and returns the value; exactly one of several concurrent calls gets it, the others ErrNotFound. After
	// ErrUnavailable the value may be gone.
	Take(ctx context.Context, id string) ([]byte, error)
	// Peek returns the values of ids in order without removing them, nil for each that is not there or cannot be read.
	Peek(ctx context.Context, ids ...string) ([][]byte, error)
}

// Feed tells of changed Slots. It is a hint to drop memory: messages can be late, repeated or lost.
type Feed interface {
	// Watch calls changed for every Slot that any replica saves or deletes, until ctx ends; it reconnects by itself, and then
	// calls changed with the zero Slot: anything may have changed meanwhile. It returns when ctx is done. changed must not block.
	Watch(ctx context.Context, changed func(Slot))
}

// Backend is a Store with everything beside it, as both implementations provide it.
type Backend interface {
	Store
	Locker
	Shelf
	Feed
	Journal
}
