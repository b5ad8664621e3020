package tokenstore

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	feedPing  = time.Second            // a subscription that is silent for so long is asked whether it lives, and left after as long again
	feedPause = 200 * time.Millisecond // between a subscription that broke and the next
)

// Watch subscribes, and again when the subscription breaks or no longer answers. What was published in between is lost, and so
// is what a slow start missed: then changed hears the zero Slot as soon as it is subscribed, and not for a first subscription
// that came at once. (go-redis renews subscriptions too, but does not notice a server that hangs.)
func (e *redisEngine) Watch(ctx context.Context, changed func(Slot)) {
	missed := false
	for ctx.Err() == nil {
		e.listen(ctx, func() {
			if missed {
				changed(Slot{})
			}
		}, changed)
		missed = true
		select {
		case <-ctx.Done():
		case <-time.After(feedPause):
		}
	}
}

// listen follows one subscription until it breaks or ctx ends; begun is called once it stands.
func (e *redisEngine) listen(ctx context.Context, begun func(), changed func(Slot)) {
	sub := e.client.Subscribe(ctx)
	defer context.AfterFunc(ctx, func() { _ = sub.Close() })() // a receive does not heed ctx
	defer func() { _ = sub.Close() }()                         // it only says that it was closed before
	if sub.Subscribe(ctx, feedChannel) != nil {
		return
	}
	standing, asked := false, false
	for {
		message, err := sub.ReceiveTimeout(ctx, feedPing)
		if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() && !asked {
			if sub.Ping(ctx) != nil {
				return
			}
			asked = true
			continue
		}
		_, answer := errors.AsType[redis.Error](err) // a server whose disk fails answers a ping so, and goes on publishing
		if err != nil && !(answer && standing) {
			return
		}
		asked = false
		switch message := message.(type) {
		case *redis.Subscription:
			if standing { // go-redis has renewed it by itself
				changed(Slot{})
				continue
			}
			standing = true
			begun()
		case *redis.Message:
			if slot, ok := parseName(message.Payload); ok {
				changed(slot)
			}
		}
	}
}
