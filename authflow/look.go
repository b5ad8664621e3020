package authflow

import (
	"context"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// slotGrant is a connection and the grant that it has.
type slotGrant struct {
	slot  tokenstore.Slot
	grant tokenstore.GrantID
}

// keepLooking looks at all connections now and then, since perhaps nobody else does: what has waited for an operator for too long is
// given back.
func (b *Broker) keepLooking(ctx context.Context) {
	for next := lookFirst; pause(ctx, next); {
		next = lookEvery
		if err := b.look(ctx); err != nil && ctx.Err() == nil {
			next = lookAgain
			b.log.Debug("whether a consent has waited for too long is not known", "error", err)
		}
	}
}

// look remembers no more of a connection than it needs: ten thousand whole ones would be more memory than all else.
func (b *Broker) look(ctx context.Context) error {
	var all []slotGrant
	for slot, entry := range b.store.List(ctx, "") {
		switch {
		case slot == (tokenstore.Slot{}):
			return entry.Err
		case entry.Record != nil:
			all = append(all, slotGrant{slot, entry.Record.Grant})
		}
	}
	for chunk := range slices.Chunk(all, noteChunk) {
		if err := b.lookAt(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) lookAt(ctx context.Context, some []slotGrant) error {
	ids := make([]string, len(some))
	for i, one := range some {
		ids[i] = candidateID(one.slot)
	}
	found, err := b.store.Peek(ctx, ids...)
	if err != nil {
		return err
	}
	for i, one := range some {
		m, c := b.managed(one.slot.Integration), candidateOf(found[i])
		if m != nil && c != nil && !c.awaits(one.grant, time.Now()) {
			b.clearCandidate(ctx, m, one.slot)
		}
	}
	return nil
}
