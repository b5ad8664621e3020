package console

import (
	"sync"
	"time"
)

// Wrong tokens, and sign-ins begun at the provider, are counted for all visitors together: addresses say little behind a front end, and a map of them would be
// memory for strangers to fill. What the limit spares is the log and the pages, not the tokens: those are too long to guess, and
// a right one is never refused, or any stranger could keep the operators out. A sign-in begun costs room on the shelf for ten
// minutes, which strangers must not fill; while they try, operators sign in by token.
const (
	wrongBurst  = 100
	wrongPeriod = 100 * time.Millisecond // one more is allowed per period
)

// throttle limits how many of one kind are answered one by one. Its zero value is ready.
type throttle struct {
	mu   sync.Mutex // guards the field below
	full time.Time  // when all wrongBurst attempts are available again
}

// allows counts one, and says whether it is within the limit.
func (t *throttle) allows() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.full.Sub(now) > (wrongBurst-1)*wrongPeriod {
		return false
	}
	if t.full.Before(now) {
		t.full = now
	}
	t.full = t.full.Add(wrongPeriod)
	return true
}
