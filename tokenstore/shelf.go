package tokenstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

func (v *vault) Put(ctx context.Context, id string, value []byte, life time.Duration) (err error) {
	defer v.metrics.observe("put", time.Now(), &err)
	if life <= 0 {
		return wrap("put", Slot{}, fmt.Errorf("%w: a life of %v", errInvalid, life))
	}
	hash := sha256.Sum256([]byte(id))
	// The end is sealed too, so that nobody with access to the store can prolong a ticket.
	plain := binary.BigEndian.AppendUint64(nil, uint64(time.Now().Add(life).UnixMilli()))
	plain = append(plain, value...)
	v.sealing.RLock()
	defer v.sealing.RUnlock()
	if err := v.cubby.put(ctx, hash, v.ring.Load().seal(purposeShelf, hash[:], plain), life); err != nil {
		return wrap("put", Slot{}, err)
	}
	return nil
}

func (v *vault) Take(ctx context.Context, id string) (_ []byte, err error) {
	defer v.metrics.observe("take", time.Now(), &err)
	hash := sha256.Sum256([]byte(id))
	sealed, err := v.cubby.take(ctx, hash)
	if err != nil {
		return nil, wrap("take", Slot{}, err)
	}
	value, err := v.openShelved(hash, sealed)
	if err != nil {
		return nil, wrap("take", Slot{}, err)
	}
	return value, nil
}

func (v *vault) Peek(ctx context.Context, ids ...string) (_ [][]byte, err error) {
	defer v.metrics.observe("peek", time.Now(), &err)
	hashes := make([][32]byte, len(ids))
	for i, id := range ids {
		hashes[i] = sha256.Sum256([]byte(id))
	}
	values, err := v.cubby.peek(ctx, hashes...)
	if err != nil {
		return nil, wrap("peek", Slot{}, err)
	}
	for i, sealed := range values {
		if sealed == nil {
			continue
		}
		values[i], _ = v.openShelved(hashes[i], sealed) // one that cannot be read is as good as none
	}
	return values, nil
}

// openShelved opens a shelved value; past its end it is ErrNotFound, whatever the store's own clock says. The value is never nil.
func (v *vault) openShelved(hash [32]byte, sealed []byte) ([]byte, error) {
	plain, err := v.ring.Load().open(purposeShelf, hash[:], sealed)
	if err != nil || len(plain) < 8 {
		return nil, fmt.Errorf("%w: the shelved value does not open", ErrUnreadable)
	}
	if int64(binary.BigEndian.Uint64(plain)) <= time.Now().UnixMilli() {
		return nil, ErrNotFound
	}
	return plain[8:], nil
}
