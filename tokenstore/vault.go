package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// vault is the one layer that knows records and keys: it seals on the way into an engine and opens on the way out. Both
// stores are a vault over an engine that keeps opaque rows and values.
type vault struct {
	rows    rows
	sealed  sealed
	cubby   cubby
	diary   diary
	leases  Locker
	feed    Feed
	ring    atomic.Pointer[Keyring] // replaced by setKeys
	sealing sync.RWMutex            // held for reading from the choice of a key until what it sealed is stored
	metrics *metrics
}

var _ Backend = (*vault)(nil)

// engine is what a vault needs below it.
type engine interface {
	rows
	sealed
	cubby
	diary
	Locker
	Feed
}

func newVault(e engine, keys *Keyring, reg prometheus.Registerer) *vault {
	v := &vault{rows: e, sealed: e, cubby: e, diary: e, leases: e, feed: e, metrics: newMetrics(reg)}
	v.ring.Store(keys)
	return v
}

func (v *vault) Get(ctx context.Context, slot Slot) (_ *Record, err error) {
	defer v.metrics.observe("get", time.Now(), &err)
	if err := checkSlot(slot); err != nil {
		return nil, wrap("get", slot, err)
	}
	stored, err := v.rows.get(ctx, slot)
	if err != nil {
		return nil, wrap("get", slot, err)
	}
	rec, err := v.unseal(slot, stored)
	if err != nil {
		return nil, wrap("get", slot, err)
	}
	return rec, nil
}

func (v *vault) Save(ctx context.Context, slot Slot, rec *Record, prev Version) (err error) {
	defer v.metrics.observe("save", time.Now(), &err)
	if err := checkSlot(slot); err != nil {
		return wrap("save", slot, err)
	}
	if rec.Grant == "" {
		return wrap("save", slot, errNoGrant)
	}
	plain, err := encodeRecord(rec)
	if err != nil {
		return wrap("save", slot, fmt.Errorf("%w: %w", errInvalid, err))
	}
	// Counting on from rec's own revision as well keeps versions from coming back when a replica writes back a record that
	// the store has lost in a failover.
	next := row{
		version: Version{rec.Grant, rec.Generation, max(prev.Revision, rec.Revision) + 1},
		due:     dueMilli(rec.Due),
	}
	v.sealing.RLock()
	defer v.sealing.RUnlock()
	next.sealed = v.ring.Load().seal(next.purpose(), next.place(slot), plain)
	if err := v.rows.swap(ctx, slot, prev, next); err != nil {
		return wrap("save", slot, err)
	}
	rec.Revision = next.version.Revision
	return nil
}

func (v *vault) Delete(ctx context.Context, slot Slot, prev Version) (err error) {
	defer v.metrics.observe("delete", time.Now(), &err)
	if err := checkSlot(slot); err != nil {
		return wrap("delete", slot, err)
	}
	if prev.Grant == "" && prev != malformed {
		return wrap("delete", slot, ErrConflict)
	}
	next := row{
		version: Version{prev.Grant, prev.Generation, prev.Revision + 1},
		due:     dueMilli(time.Now().Add(TombstoneLife)),
		dead:    true,
	}
	v.sealing.RLock()
	defer v.sealing.RUnlock()
	next.sealed = v.ring.Load().seal(next.purpose(), next.place(slot), nil)
	if err := v.rows.swap(ctx, slot, prev, next); err != nil {
		return wrap("delete", slot, err)
	}
	return nil
}

func (v *vault) List(ctx context.Context, integration string) iter.Seq2[Slot, Entry] {
	return func(yield func(Slot, Entry) bool) {
		var err error
		start := time.Now()
		defer func() { v.metrics.observe("list", start, &err) }()
		for slot, entry := range v.rows.list(ctx, integration) {
			if entry.err != nil && slot == (Slot{}) {
				err = wrap("list", slot, entry.err)
				yield(slot, Entry{Err: err})
				return
			}
			var rec *Record
			unread := entry.err
			if unread == nil {
				rec, unread = v.unseal(slot, entry.row)
			}
			if errors.Is(unread, ErrNotFound) {
				continue // a genuine tombstone
			}
			if unread != nil {
				unread = wrap("list", slot, unread)
			}
			if !yield(slot, Entry{Record: rec, Err: unread}) {
				return
			}
		}
	}
}

func (v *vault) Due(ctx context.Context, now time.Time, limit int) (_ []Slot, err error) {
	defer v.metrics.observe("due", time.Now(), &err)
	if limit <= 0 {
		return nil, nil
	}
	slots, err := v.rows.due(ctx, now.UnixMilli(), limit)
	if err != nil {
		return nil, wrap("due", Slot{}, err)
	}
	return slots, nil
}

// unseal opens a row; a tombstone is ErrDeleted once its seal has proven it genuine: a live record must not look deleted,
// for then its org would use the global connection.
func (v *vault) unseal(slot Slot, stored row) (*Record, error) {
	plain, err := v.ring.Load().open(stored.purpose(), stored.place(slot), stored.sealed)
	if err == nil && stored.over(time.Now()) {
		return nil, ErrNotFound
	}
	if err == nil && stored.dead {
		return nil, ErrDeleted
	}
	var rec *Record
	if err == nil {
		rec, err = decodeRecord(plain, stored.version)
	}
	if err != nil {
		at := stored.version
		if stored.dead {
			at = malformed // a genuine tombstone does not give way to who names its version: this is none
		}
		return nil, &UnreadableError{Stored: at, Reason: err.Error()}
	}
	return rec, nil
}

func (v *vault) Acquire(ctx context.Context, slot Slot, ttl time.Duration) (_ Lease, err error) {
	defer v.metrics.observe("acquire", time.Now(), &err)
	if err := checkSlot(slot); err != nil {
		return Lease{}, wrap("acquire", slot, err)
	}
	lease, err := v.leases.Acquire(ctx, slot, ttl)
	if err != nil {
		return Lease{}, wrap("acquire", slot, err)
	}
	return lease, nil
}

func (v *vault) Renew(ctx context.Context, lease Lease, ttl time.Duration) (_ Lease, err error) {
	defer v.metrics.observe("renew", time.Now(), &err)
	renewed, err := v.leases.Renew(ctx, lease, ttl)
	if err != nil {
		return Lease{}, wrap("renew", lease.Slot, err)
	}
	return renewed, nil
}

func (v *vault) Release(ctx context.Context, lease Lease) (err error) {
	defer v.metrics.observe("release", time.Now(), &err)
	if err := v.leases.Release(ctx, lease); err != nil {
		return wrap("release", lease.Slot, err)
	}
	return nil
}

func (v *vault) Watch(ctx context.Context, changed func(Slot)) { v.feed.Watch(ctx, changed) }

// errInvalid marks what no store could do; it is the caller's mistake.
var errInvalid = errors.New("invalid")

var errNoGrant = fmt.Errorf("%w: the record has no grant", errInvalid)

// checkSlot refuses the zero values, which are always a bug of the caller.
func checkSlot(slot Slot) error {
	if slot.Integration == "" || slot.Org == "" {
		return fmt.Errorf("%w: the slot has no integration or no org", errInvalid)
	}
	return nil
}

// wrap says what failed and makes ErrUnavailable of everything that is not one of the package's errors: contexts that
// ended, network errors, full disks.
func wrap(op string, slot Slot, err error) error {
	for _, known := range []error{ErrNotFound, ErrConflict, ErrHeld, ErrUnreadable, ErrUnavailable, errInvalid} {
		if errors.Is(err, known) {
			return wrapped(op, slot, err)
		}
	}
	return wrapped(op, slot, fmt.Errorf("%w: %w", ErrUnavailable, err))
}

func wrapped(op string, slot Slot, err error) error {
	if slot == (Slot{}) {
		return fmt.Errorf("tokenstore: %s: %w", op, err)
	}
	return fmt.Errorf("tokenstore: %s %s: %w", op, slot, err)
}
