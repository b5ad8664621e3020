package authflow

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// shelve keeps v on the shelf.
func shelve(ctx context.Context, shelf tokenstore.Shelf, id string, v any, life time.Duration) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return shelf.Put(ctx, id, data, life)
}

// peek returns what the shelf keeps under id and leaves it there, or tokenstore.ErrNotFound.
func peek[T any](ctx context.Context, shelf tokenstore.Shelf, id string) (v T, err error) {
	found, err := shelf.Peek(ctx, id)
	switch {
	case err != nil:
		return v, err
	case found[0] == nil:
		return v, tokenstore.ErrNotFound
	}
	return v, json.Unmarshal(found[0], &v)
}

// take removes and returns what the shelf keeps under id, or tokenstore.ErrNotFound.
func take[T any](ctx context.Context, shelf tokenstore.Shelf, id string) (v T, err error) {
	data, err := shelf.Take(ctx, id)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(data, &v)
}

// How long one who changes a list on the shelf has for it, and keeps others from it. A list is read, changed and put back: two
// replicas that did so at once would lose what one of them wrote.
const (
	listWork = 4 * time.Second
	listHold = 3 * listWork // longer than the work, so that nobody writes without the lease
	listPoll = 20 * time.Millisecond
)

// alone runs change while no other replica runs one of the same purpose for the slot. The lease is not that of the connection, so
// that a refresh under way holds nobody up.
func (b *Broker) alone(ctx context.Context, purpose string, slot tokenstore.Slot, change func(context.Context) error) error {
	lock := tokenstore.Slot{Integration: slot.Integration, Org: tokenstore.Org(purpose+" of ") + slot.Org} // no org has a space
	ctx, cancel := context.WithTimeout(ctx, 2*listWork)
	defer cancel()
	for {
		lease, err := b.acquire(ctx, lock, listHold)
		if err == nil {
			defer b.release(lease)
			work, done := context.WithTimeout(ctx, listWork)
			defer done()
			return change(work)
		}
		if !errors.Is(err, tokenstore.ErrHeld) {
			return err
		}
		if !pause(ctx, listPoll) {
			return tokenstore.ErrUnavailable
		}
	}
}
