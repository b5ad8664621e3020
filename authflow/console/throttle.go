package console

import (
	"sync"
	"time"
)

// Wrong tokens are counted for all visitors together: addresses say little behind a front end, and a map of them would be
// memory for strangers to fill. What the limit spares is the log and the pages, not the tokens: those are too long to guess, and
// a right one is never refused, or any stranger could keep the operators out.
const (
	wrongBurst  = 100
	wrongPeriod = 100 * time.Millisecond // one more is allowed per period
)

// throttle limits how many wrong tokens are answered one by one. Its zero value is ready.
type throttle struct {
	mu   sync.Mutex // guards the field below
	full time.Time  // when all wrongBurst attempts are available again
}

// wrong counts a wrong token, and says whether it is within the limit.
func (t *throttle) wrong() bool {
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
