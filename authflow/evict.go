package authflow

import (
	"sync"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// newcomersMax is how many came to memory last, of which those that turned out not to be connected may stay: a caller may ask
// for any org that it makes up.
const newcomersMax = 50_000

// newcomers are the Slots that came to memory last. The zero value is ready.
type newcomers struct {
	mu    sync.Mutex // guards what follows; taken when a Slot comes to memory only
	slots []tokenstore.Slot
	next  int // the earliest, once slots is full
}

// add takes the place of the earliest newcomer once they are full, and returns it.
func (n *newcomers) add(slot tokenstore.Slot) (early tokenstore.Slot, full bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.slots) < newcomersMax {
		n.slots = append(n.slots, slot)
		return early, false
	}
	early, n.slots[n.next] = n.slots[n.next], slot
	n.next = (n.next + 1) % newcomersMax
	return early, true
}

// dismiss has a connection leave memory that is not one, as far as is known.
func (b *Broker) dismiss(slot tokenstore.Slot) {
	v, ok := b.conns.Load(slot)
	if !ok {
		return
	}
	if c := v.(*conn); c.absent() && !c.busy(time.Now()) {
		b.conns.CompareAndDelete(slot, v)
	}
}

// evict lets connections leave memory that nobody has used for a while. One with a flight stays: it may hold the only copy
// of a token. So does one that was refreshed lately, by the sweep perhaps: see recheck.
func (b *Broker) evict(now time.Time) {
	b.conns.Range(func(slot, v any) bool {
		c, keep := v.(*conn), keepUsed
		if c.absent() {
			keep = keepAbsent
		}
		if !c.busy(now) && !c.snap.Load().changedSince(now.Add(-lately)) && now.Sub(time.Unix(c.used.Load(), 0)) > keep {
			b.conns.CompareAndDelete(slot, v)
		}
		return true
	})
}

// absent tells whether memory knows of no grant.
func (c *conn) absent() bool {
	return !c.snap.Load().known()
}

// busy tells whether something is under way, or to be left alone, that memory alone knows of.
func (c *conn) busy(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flight != nil || c.read != nil || now.Before(c.quietUntil)
}
