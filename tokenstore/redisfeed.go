package tokenstore

import "context"

// Watch subscribes; go-redis pings an idle subscription and renews a broken one by itself.
func (e *redisEngine) Watch(ctx context.Context, changed func(Slot)) {
	sub := e.client.Subscribe(ctx, feedChannel)
	defer func() { _ = sub.Close() }() // it only says that it was closed before
	messages := sub.Channel()
	for {
		select {
		case <-ctx.Done():
			return
		case message, open := <-messages:
			if !open { // the client was closed
				<-ctx.Done()
				return
			}
			if slot, ok := parseName(message.Payload); ok {
				changed(slot)
			}
		}
	}
}
