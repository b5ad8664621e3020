package tokenstore

import (
	"context"
	"time"
)

// What the tests reach of a Redis.

// SetClock lets a Redis read another clock.
func (r *Redis) SetClock(now func() time.Time) { r.engine.clock.now = now }

// Look looks after a Redis as it does every minute.
func (r *Redis) Look(ctx context.Context) { r.care.look(ctx) }
