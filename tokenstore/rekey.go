package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// Rekeyed is what a Rekey did.
type Rekeyed struct {
	Key        string // the ID of the newest key, as this process knows it
	Resealed   int    // records and tombstones that are under the newest key now
	Current    int    // those that were already, or were saved meanwhile
	Unreadable int    // those that no key of the ring opens, left untouched
	// Complete says that the older keys of the ring open nothing any more that the newest does not, the key-check record
	// included: they can be taken out of the ring. It is false while something damaged is left that one of them sealed.
	Complete bool
}

// rekeyWalks bounds how often Rekey goes through the store. The first walk seals, the second finds nothing left to do.
const rekeyWalks = 4

// rekeyPage is how many shelved values are read at once.
const rekeyPage = 128

// errRekeyRace says that somebody goes on sealing with an older key.
var errRekeyRace = errors.New("records are still being saved under an older key: give every replica the newest key first, then try again")

// sealed is what an engine offers for a change of keys.
type sealed interface {
	// every yields every row, tombstones too. The consumer may call any method meanwhile. A row that is there from the
	// beginning to the end is yielded at least once.
	every(ctx context.Context) iter.Seq2[Slot, rowEntry]
	// reseal replaces a row's sealed bytes if they are old, and nothing else of it; it publishes nothing. It returns
	// ErrConflict otherwise.
	reseal(ctx context.Context, slot Slot, old, next []byte) error
	// shelved returns the id of every shelved value that is there from the beginning to the end of the call.
	shelved(ctx context.Context) ([][32]byte, error)
	// reshelve replaces a shelved value if it is old, and leaves its end as it is; ErrConflict otherwise.
	reshelve(ctx context.Context, id [32]byte, old, next []byte) error
	// check returns the store's id and its key-check record.
	check(ctx context.Context) (id string, record []byte, err error)
	// recheck replaces the key-check record if it is old; ErrConflict otherwise.
	recheck(ctx context.Context, old, next []byte) error
}

// rekey seals every row, every shelved value and every entry with the newest key of the ring, and the key-check record last: until then a
// start without the older keys is refused. No version changes and nothing is published, so that whatever reads and saves
// meanwhile notices nothing.
//
// Everything that does not open holds the key-check record back, except what an unknown key or the newest one sealed: with
// these, taking the older keys away takes nothing from whoever may repair it.
func (v *vault) rekey(ctx context.Context) (done Rekeyed, err error) {
	defer v.metrics.observe("rekey", time.Now(), &err)
	for range rekeyWalks {
		keys := v.ring.Load()
		done.Key = keys.first
		walk, err := v.rekeyWalk(ctx, keys)
		done.Resealed += walk.resealed
		done.Current, done.Unreadable = max(0, walk.current-done.Resealed), walk.unreadable
		if err != nil {
			return done, wrap("rekey", Slot{}, err)
		}
		if walk.resealed+walk.shelved+walk.noted+walk.missed > 0 {
			continue
		}
		if walk.held == 0 {
			if err := v.rekeyCheck(ctx, keys); err != nil {
				return done, wrap("rekey", Slot{}, err)
			}
			done.Complete = true
		}
		return done, nil
	}
	return done, wrap("rekey", Slot{}, fmt.Errorf("%w: %w", ErrConflict, errRekeyRace))
}

// rekeyed counts what one walk found.
type rekeyed struct {
	resealed, current int
	shelved, noted    int // shelved values and entries that were sealed; nobody counts them but for the next walk
	missed            int // changed while they were sealed: the next walk looks again
	unreadable        int
	held              int // of the unreadable: those that an older key may have sealed
}

// sealAnew stores with store what is sealed anew with the newest of keys; ErrConflict if other keys are in force by now.
func (v *vault) sealAnew(keys *Keyring, p purpose, place, plain []byte, store func(next []byte) error) error {
	v.sealing.RLock()
	defer v.sealing.RUnlock()
	if v.ring.Load() != keys {
		return ErrConflict
	}
	return store(keys.seal(p, place, plain))
}

func (v *vault) rekeyWalk(ctx context.Context, keys *Keyring) (walk rekeyed, err error) {
	for slot, entry := range v.sealed.every(ctx) {
		if entry.err != nil && slot == (Slot{}) {
			return walk, entry.err
		}
		if entry.err != nil {
			walk.unreadable++
			walk.held++
			continue
		}
		stored := entry.row
		key, _ := keyOf(stored.sealed) // open fails too if it names none
		plain, err := keys.open(stored.purpose(), stored.place(slot), stored.sealed)
		switch {
		case err != nil:
			walk.unreadable++
			if key == "" || key != keys.first && keys.aeads[key] != nil {
				walk.held++
			}
		case key == keys.first:
			walk.current++
		default:
			err = v.sealAnew(keys, stored.purpose(), stored.place(slot), plain, func(next []byte) error {
				return v.sealed.reseal(ctx, slot, stored.sealed, next)
			})
			if err := walk.count(&walk.resealed, err); err != nil {
				return walk, err
			}
		}
	}
	if err := v.rekeyShelf(ctx, keys, &walk); err != nil {
		return walk, err
	}
	return walk, v.rekeyNotes(ctx, keys, &walk)
}

// rekeyShelf passes over what does not open: it is of no use to anybody, and ends by itself.
func (v *vault) rekeyShelf(ctx context.Context, keys *Keyring, walk *rekeyed) error {
	ids, err := v.sealed.shelved(ctx)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(ids, rekeyPage) {
		values, err := v.cubby.peek(ctx, page...)
		if err != nil {
			return err
		}
		for i, id := range page {
			plain, err := keys.open(purposeShelf, id[:], values[i])
			if key, _ := keyOf(values[i]); err != nil || key == keys.first {
				continue
			}
			err = v.sealAnew(keys, purposeShelf, id[:], plain, func(next []byte) error {
				return v.sealed.reshelve(ctx, id, values[i], next)
			})
			if err := walk.count(&walk.shelved, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// count counts one that was sealed, or missed; any other err ends the walk.
func (walk *rekeyed) count(sealed *int, err error) error {
	switch {
	case err == nil:
		*sealed++
	case errors.Is(err, ErrConflict):
		walk.missed++
	default:
		return err
	}
	return nil
}

func (v *vault) rekeyCheck(ctx context.Context, keys *Keyring) error {
	id, record, err := v.sealed.check(ctx)
	if err != nil {
		return err
	}
	if _, err := keys.open(purposeCheck, []byte(id), record); err != nil {
		return ErrWrongKey // it was exchanged since the store was opened
	}
	if key, _ := keyOf(record); key == keys.first {
		return nil
	}
	return v.sealAnew(keys, purposeCheck, []byte(id), nil, func(next []byte) error { return v.sealed.recheck(ctx, record, next) })
}

// Rekey seals every record, shelved value and entry anew with the newest key of the ring, while everything else goes on: no version changes, nobody has to
// read again. It can be repeated at will. See Rekeyed for what is left to do.
func (f *File) Rekey(ctx context.Context) (Rekeyed, error) { return f.vault.rekey(ctx) }
