package tokenstore

import (
	"context"
	"fmt"
	"time"
)

// minFree is what must be free on the store's file system before anything is refreshed: far more than what the answers to the
// refreshes that are under way at a time can need.
const minFree = 16 << 20

// Acquire gives out no lease while the disk is nearly full. An answer that cannot be stored is a lost grant: it is better not to
// ask. A lease that was given out before can still be renewed.
func (e *fileEngine) Acquire(ctx context.Context, slot Slot, ttl time.Duration) (Lease, error) {
	if err := e.room(0); err != nil {
		return Lease{}, err
	}
	return e.leases.Acquire(ctx, slot, ttl)
}

// room says whether more bytes could be written and still leave minFree. Where that cannot be found out, there is room.
func (e *fileEngine) room(more uint64) error {
	free, err := e.free()
	if err == nil && free < minFree+more {
		return fmt.Errorf("%w: only %d KiB are free on the disk of %s, less than %d KiB: make room", ErrUnavailable, free>>10, e.db.Path(), (minFree+more)>>10)
	}
	return nil
}
