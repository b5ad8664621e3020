package authflow

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func (b *Broker) acquire(ctx context.Context, slot tokenstore.Slot, ttl time.Duration) (tokenstore.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	began := time.Now()
	lease, err := b.store.Acquire(ctx, slot, ttl)
	switch {
	case errors.Is(err, tokenstore.ErrHeld):
	case errors.Is(err, tokenstore.ErrClock): // the store answers: what it has can be used
		b.heard(nil, began)
	default:
		b.heard(err, began)
	}
	return lease, err
}

// outlive has enough of the lease left for a POST to begin, renewing it if need be.
func (b *Broker) outlive(ctx context.Context, lease *tokenstore.Lease, t timing) error {
	now := time.Now()
	// By both clocks: the monotonic one may stand still while a machine sleeps, the other may be put back.
	if min(lease.Expires.Sub(now), lease.Expires.Round(0).Sub(now.Round(0))) >= t.spare {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	renewed, err := b.store.Renew(ctx, *lease, t.lease)
	if err == nil {
		*lease = renewed
	}
	return err
}

// beat renews the lease again and again until stop is called, which waits for the last renewal to end. A lease that is lost is
// no error: the compare-and-swap guards what is written, and the lease only spares others the work.
func (b *Broker) beat(lease tokenstore.Lease, t timing) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for pause(ctx, t.beat) {
			once, done := context.WithTimeout(ctx, storeTime)
			_, err := b.store.Renew(once, lease, t.lease)
			done()
			if err != nil && ctx.Err() == nil {
				b.log.Debug("a lease was not renewed", "connection", lease.Slot.String(), "error", err)
			}
			if errors.Is(err, tokenstore.ErrHeld) {
				return
			}
		}
	})
	return func() {
		cancel()
		all.Wait()
	}
}

// release gives the lease back on a context of its own: the flight's may have ended. If the store cannot be reached, the
// lease runs out by itself.
func (b *Broker) release(lease tokenstore.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	if err := b.store.Release(ctx, lease); err != nil {
		b.log.Debug("a lease was not released and runs out by itself", "connection", lease.Slot.String(), "error", err)
	}
}
