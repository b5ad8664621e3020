package authflow

import (
	"sync"
	"time"
)

// newcomersMax is how many came to memory last, of which those that turned out not to be connected may stay: a caller may ask
// for any org that it makes up.
const newcomersMax = 50_000

// newcomers are those that came to memory last. The zero value is ready.
type newcomers struct {
	mu   sync.Mutex // guards what follows; taken when a connection comes to memory only
	list []*conn
	next int // the earliest, once list is full
}

// add takes the place of the earliest newcomer once they are full, and returns it; else nil.
func (n *newcomers) add(c *conn) (early *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.list) < newcomersMax {
		n.list = append(n.list, c)
		return nil
	}
	early, n.list[n.next] = n.list[n.next], c
	n.next = (n.next + 1) % newcomersMax
	return early
}

// dismiss has a connection leave memory that is not one, as far as is known.
func (b *Broker) dismiss(c *conn) {
	if c.absent() && !c.busy(time.Now()) {
		b.conns.remove(c)
	}
}

// evict lets connections leave memory that nobody has used for a while. One with a flight stays: it may hold the only copy
// of a token. So does one that was refreshed lately, by the sweep perhaps: see recheck.
func (b *Broker) evict(now time.Time) {
	for c := range b.conns.all() {
		keep := keepUsed
		if c.absent() {
			keep = keepAbsent
		}
		if now.Sub(time.Unix(c.used.Load(), 0)) > keep && !c.busy(now) && !c.snap.Load().changedSince(now.Add(-lately)) {
			b.conns.remove(c)
		}
	}
	b.conns.compact()
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
