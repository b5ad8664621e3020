package console

import (
	"sync"
	"time"
)

// Wrong tokens are counted for all visitors together: addresses say little behind a front end, and a map of them would be
// memory for strangers to fill. A hundred at once and ten a second leave room for every honest mistake, and to a guesser
// no chance against even a short random token.
const (
	wrongBurst  = 100
	wrongPeriod = 100 * time.Millisecond // one more is allowed per period
)

// throttle limits how many wrong tokens are looked at. Its zero value is ready.
type throttle struct {
	mu   sync.Mutex // guards the field below
	full time.Time  // when all wrongBurst attempts are available again
}

// open says whether a token may be looked at now.
func (t *throttle) open() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Until(t.full) <= (wrongBurst-1)*wrongPeriod
}

// wrong counts a wrong token.
func (t *throttle) wrong() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.full.Before(now) {
		t.full = now
	}
	t.full = t.full.Add(wrongPeriod)
}
