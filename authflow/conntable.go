package authflow

import (
	"iter"
	"sync"
	"sync/atomic"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// connTable finds the connections in memory. To find one that has been here for a while takes no lock and allocates nothing, and
// one of ten thousand lies at the end of few pointers: most of what a look-up costs then is memory that no cache has. The zero
// value is ready.
//
// A map that is read is never written: what comes goes into a copy of it, which takes its place when it has been asked as often as
// it has entries. So the copying costs each newcomer a few steps, however many there are.
type connTable struct {
	read atomic.Pointer[map[tokenstore.Slot]*conn]

	mu    sync.Mutex                // guards what follows
	fresh map[tokenstore.Slot]*conn // all that are not gone; nil: nothing has come since it became read
	asked int                       // look-ups in fresh
	gone  int                       // how many of read are
}

// load returns the connection, or nil.
func (t *connTable) load(slot tokenstore.Slot) *conn {
	if c := t.lookUp(slot); c != nil {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.freshLocked(slot)
}

// loadOrNew returns the connection, and whether it was made for this call.
func (t *connTable) loadOrNew(slot tokenstore.Slot) (c *conn, isNew bool) {
	if c := t.lookUp(slot); c != nil {
		return c, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.freshLocked(slot); c != nil {
		return c, false
	}
	if t.fresh == nil {
		t.fresh = t.copyLocked(1)
	}
	c = &conn{slot: slot}
	t.fresh[slot] = c
	return c, true
}

// remove has a connection leave. Who has it already goes on with it.
func (t *connTable) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.gone.Swap(true) {
		return
	}
	if t.fresh != nil {
		delete(t.fresh, c.slot)
	}
	if m := t.read.Load(); m != nil && (*m)[c.slot] == c {
		t.gone++
	}
}

// all yields every connection that was there when it was called.
func (t *connTable) all() iter.Seq[*conn] {
	t.mu.Lock()
	t.publishLocked()
	m := t.read.Load()
	t.mu.Unlock()
	return func(yield func(*conn) bool) {
		if m == nil {
			return
		}
		for _, c := range *m {
			if !c.gone.Load() && !yield(c) {
				return
			}
		}
	}
}

// compact gives the memory back that connections have left.
func (t *connTable) compact() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone > 0 && t.fresh == nil {
		t.fresh = t.copyLocked(0)
	}
	t.publishLocked()
}

func (t *connTable) lookUp(slot tokenstore.Slot) *conn {
	m := t.read.Load()
	if m == nil {
		return nil
	}
	if c := (*m)[slot]; c != nil && !c.gone.Load() {
		return c
	}
	return nil
}

// freshLocked looks where newcomers are. It counts itself, and one that is asked often enough becomes the map that is read.
func (t *connTable) freshLocked(slot tokenstore.Slot) *conn {
	if t.fresh == nil {
		return t.lookUp(slot) // it may have become read meanwhile
	}
	c := t.fresh[slot]
	if t.asked++; t.asked > len(t.fresh) {
		t.publishLocked()
	}
	return c
}

func (t *connTable) publishLocked() {
	if t.fresh == nil {
		return
	}
	m := t.fresh
	t.read.Store(&m)
	t.fresh, t.asked, t.gone = nil, 0, 0
}

// copyLocked copies what is read without those that are gone, with room for so many more.
func (t *connTable) copyLocked(more int) map[tokenstore.Slot]*conn {
	m := t.read.Load()
	if m == nil {
		return make(map[tokenstore.Slot]*conn)
	}
	fresh := make(map[tokenstore.Slot]*conn, len(*m)+more)
	for slot, c := range *m {
		if !c.gone.Load() {
			fresh[slot] = c
		}
	}
	return fresh
}
