package authflow

import (
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// shareOut is how many neighbours in a list of what is due are taken in any order: many more than are refreshed at a time, so
// that replicas seldom meet, and few enough for the longest due to come first.
const shareOut = 256

// share keeps replicas that sweep the same connections out of each other's way. Each begins elsewhere, and leaves alone what the
// Feed says another one has begun: without that all but one would ask for every lease in vain. It saves work and decides
// nothing: what was left alone wrongly is listed again by the next sweep, and the lease lets only one refresh.
type share struct {
	mu   sync.Mutex                   // guards left
	left map[tokenstore.Slot]struct{} // listed as due; not begun here, nor changed since
}

// list takes note of slots and puts them into an order of this replica's own.
func (s *share) list(slots []tokenstore.Slot) {
	for chunk := range slices.Chunk(slots, shareOut) {
		rand.Shuffle(len(chunk), func(i, j int) { chunk[i], chunk[j] = chunk[j], chunk[i] })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == nil {
		s.left = make(map[tokenstore.Slot]struct{}, len(slots))
	}
	for _, slot := range slots {
		s.left[slot] = struct{}{}
	}
}

// take says whether the slot is still to be done; it counts as begun from now on. The Feed's word is a take too.
func (s *share) take(slot tokenstore.Slot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, left := s.left[slot]
	delete(s.left, slot)
	return left
}

// forget ends what is left of slots.
func (s *share) forget(slots []tokenstore.Slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range slots {
		delete(s.left, slot)
	}
	if len(s.left) == 0 {
		s.left = nil // a map never shrinks by itself
	}
}
