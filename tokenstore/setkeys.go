package tokenstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// scanTime bounds the look for what a key that goes has sealed.
const scanTime = 30 * time.Second

// setKeys lets everything that is sealed and opened from now on use keys. What was begun with the ring before is stored when
// it returns. It refuses a ring that could not open what is stored, or what this process is sealing meanwhile; the ring
// before stays then. The IDs that others returns (nil: none) are of keys with which other processes seal.
func (v *vault) setKeys(ctx context.Context, keys *Keyring, others func(context.Context) ([]string, error)) error {
	if keys == nil {
		return errors.New("tokenstore: set keys: no keys")
	}
	running := v.ring.Load()
	if running.equal(keys) {
		return nil
	}
	if err := errors.Join(running.clash(keys), running.lacksFirst(keys)); err != nil {
		return fmt.Errorf("tokenstore: set keys: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	if err := v.spares(ctx, running, keys, others); err != nil {
		return wrap("set keys", Slot{}, err)
	}
	// Whoever seals meanwhile does so with the first key of running, which keys has.
	v.sealing.Lock()
	defer v.sealing.Unlock()
	if !v.ring.CompareAndSwap(running, keys) {
		return wrap("set keys", Slot{}, ErrConflict)
	}
	return nil
}

// equal says whether two rings have the same keys under the same IDs in the same order.
func (k *Keyring) equal(other *Keyring) bool {
	return slices.Equal(k.ids, other.ids) &&
		maps.EqualFunc(k.prints, other.prints, bytes.Equal)
}

// clash refuses a ring that means another key by an ID than k does, or calls one of k's keys by another ID: what is stored names
// its key by the ID.
func (k *Keyring) clash(next *Keyring) error {
	for _, id := range next.ids {
		print := next.prints[id]
		if was := k.prints[id]; was != nil && !bytes.Equal(was, print) {
			return fmt.Errorf("%w: the encryption key %q has other bytes than before: give the new key an id of its own, and keep the old one until "+
				"`bifrost rekey` has run", errRing, id)
		}
		for former, was := range k.prints {
			if former != id && bytes.Equal(was, print) {
				return fmt.Errorf("%w: the encryption key %q is the one that was called %q: what it sealed names it so, give it that id again", errRing, id, former)
			}
		}
	}
	return nil
}

// lacksFirst refuses a ring that lacks the key with which k is sealing just now.
func (k *Keyring) lacksFirst(next *Keyring) error {
	if next.aeads[k.first] != nil {
		return nil
	}
	return fmt.Errorf("%w: the encryption key %q is still in use, it seals what is saved now: keep it, behind the new key, run `bifrost rekey`, and then take it out",
		errRing, k.first)
}

// errRing marks a ring that cannot take the place of the running one. It is the caller's mistake.
var errRing = fmt.Errorf("%w ring of keys", errInvalid)

// spares refuses a ring that does not open the key-check record, or lacks a key of the running one that opens something.
func (v *vault) spares(ctx context.Context, running, next *Keyring, others func(context.Context) ([]string, error)) error {
	id, record, err := v.sealed.check(ctx)
	if err != nil {
		return err
	}
	checked, _ := keyOf(record)
	gone := slices.DeleteFunc(running.IDs(), func(id string) bool { return next.aeads[id] != nil })
	if !slices.Contains(gone, checked) { // otherwise there is more to tell
		if _, err := next.open(purposeCheck, []byte(id), record); err != nil {
			return ErrWrongKey
		}
	}
	if len(gone) == 0 {
		return nil
	}
	if others != nil {
		sealing, err := others(ctx)
		if err != nil {
			return err
		}
		for _, id := range sealing {
			if slices.Contains(gone, id) {
				return othersError{id}
			}
		}
	}
	used, err := v.uses(ctx)
	if err != nil {
		return err
	}
	for _, id := range gone {
		use := used[id]
		use.check = id == checked
		if use != (KeyUse{}) {
			return &KeyInUseError{id, use}
		}
	}
	return nil
}

// KeyInUseError says which key a ring lacks, and what it seals.
type KeyInUseError struct {
	ID  string
	Use KeyUse
}

func (e *KeyInUseError) Error() string {
	return fmt.Sprintf("%v: the encryption key %q is still in use, it seals %s: put it back, run `bifrost rekey`, and then take it out", errRing, e.ID, e.Use)
}

// Unwrap says that it is the caller's mistake.
func (e *KeyInUseError) Unwrap() error { return errRing }

// KeyUse counts what one key has sealed.
type KeyUse struct {
	Records, Tombstones int
	Shelved             int // sign-ins, connect links and consents under way
	Noted               int // entries of a Journal
	check               bool
}

// String names what there is, such as "3 records and 1 tombstone".
func (u KeyUse) String() string {
	var parts []string
	for _, part := range []struct {
		n    int
		name string
	}{{u.Records, "record"}, {u.Tombstones, "mark of a disconnect"}, {u.Shelved, "sign-in or connect link"}, {u.Noted, "entry of a history"}} {
		switch {
		case part.n == 1:
			parts = append(parts, "1 "+part.name)
		case part.n > 1:
			parts = append(parts, fmt.Sprintf("%d × %s", part.n, part.name))
		}
	}
	if u.check {
		parts = append(parts, "the key-check record")
	}
	return strings.Join(parts, ", ")
}

// uses counts what is stored by the ID of the key that it names, whether that opens it or not. What names none is left out: the
// key-check record is what stands for it, see rekey.
func (v *vault) uses(ctx context.Context) (map[string]KeyUse, error) {
	used := make(map[string]KeyUse)
	count := func(envelope []byte, what func(*KeyUse) *int) {
		if id, err := keyOf(envelope); err == nil {
			use := used[id]
			*what(&use)++
			used[id] = use
		}
	}
	for slot, entry := range v.sealed.every(ctx) {
		switch {
		case entry.err != nil && slot == (Slot{}):
			return nil, entry.err
		case entry.err != nil, entry.row.over(time.Now()):
		case entry.row.dead:
			count(entry.row.sealed, func(u *KeyUse) *int { return &u.Tombstones })
		default:
			count(entry.row.sealed, func(u *KeyUse) *int { return &u.Records })
		}
	}
	ids, err := v.sealed.shelved(ctx)
	if err != nil {
		return nil, err
	}
	for page := range slices.Chunk(ids, rekeyPage) {
		values, err := v.cubby.peek(ctx, page...)
		if err != nil {
			return nil, err
		}
		for _, value := range values {
			count(value, func(u *KeyUse) *int { return &u.Shelved })
		}
	}
	return used, v.usesOfNotes(ctx, count)
}

// usesOfNotes leaves out the entries that are damaged: nobody can mend them, and no key need stay for them.
func (v *vault) usesOfNotes(ctx context.Context, count func([]byte, func(*KeyUse) *int)) error {
	slots, err := v.diary.noted(ctx)
	if err != nil {
		return err
	}
	keys := v.ring.Load()
	for _, slot := range slots {
		entries, err := v.diary.notes(ctx, slot)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			id, _ := keyOf(entry)
			if _, err := keys.open(purposeNote, slotKey(slot), entry); err == nil || keys.aeads[id] == nil {
				count(entry, func(u *KeyUse) *int { return &u.Noted })
			}
		}
	}
	return nil
}

// missingKeys returns the uses of keys that the ring does not have.
func (v *vault) missingKeys(ctx context.Context) (map[string]KeyUse, error) {
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	used, err := v.uses(ctx)
	if err != nil {
		return nil, wrap("look for missing keys", Slot{}, err)
	}
	keys := v.ring.Load()
	maps.DeleteFunc(used, func(id string, _ KeyUse) bool { return keys.aeads[id] != nil })
	return used, nil
}

// SetKeys replaces the ring while everything goes on. It refuses, and keeps the ring before, if keys do not open the key-check
// record (ErrWrongKey), lack the key that seals what is saved now or one by which something stored is sealed, or mean by an ID
// another key than the ring before; the error names the key and says what to do. It is ErrUnavailable if the store cannot be asked.
func (f *File) SetKeys(ctx context.Context, keys *Keyring) error {
	return f.vault.setKeys(ctx, keys, nil)
}

// MissingKeys says what is stored under keys that the ring lacks, by their IDs: those connections cannot be read without them.
func (f *File) MissingKeys(ctx context.Context) (map[string]KeyUse, error) {
	return f.vault.missingKeys(ctx)
}
