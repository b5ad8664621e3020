package proxy

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// share is what one org or one caller uses of one integration. A nil share is that of somebody without limits.
type share struct {
	name string

	mu          sync.Mutex // guards all below
	gone        bool       // it is not in shares any more, and whoever found it there looks again
	quota       *Quota     // by which bucket is set; nil: there is no bucket yet
	bucket      *rate.Limiter
	underWay    int
	pausedUntil time.Time
}

// refusals are what a share's owner is told.
type refusals struct{ rate, concurrent string }

var (
	ofOrg = refusals{
		rate:       "This org is over its rate at this integration.",
		concurrent: "This org has too many requests to this integration under way.",
	}
	ofCaller = refusals{
		rate:       "This caller is over its rate at this integration.",
		concurrent: "This caller has too many requests to this integration under way.",
	}
)

func (s *share) unlock() {
	if s != nil {
		s.mu.Unlock()
	}
}

// paused says that the upstream has asked the owner to wait, where that counts. s is locked, here and in what follows.
func (s *share) paused(counts bool, now time.Time) *failure {
	if s == nil || !counts || !now.Before(s.pausedUntil) {
		return nil
	}
	return &failure{code: codeRateLimited, detail: "The upstream has asked this org to wait.", retryAfter: s.pausedUntil.Sub(now)}
}

// refuses says why another request is too much by q, and takes nothing.
func (s *share) refuses(q *Quota, now time.Time, tell *refusals) *failure {
	if s == nil || q == nil {
		return nil
	}
	if q.Concurrent > 0 && s.underWay >= q.Concurrent {
		return &failure{code: codeRateLimited, detail: tell.concurrent, retryAfter: time.Second}
	}
	if q.Rate == 0 {
		return nil
	}
	s.apply(q, now)
	missing := 1 - s.bucket.TokensAt(now)
	if wait := time.Duration(missing / q.Rate * float64(time.Second)); wait > 0 {
		return &failure{code: codeRateLimited, detail: tell.rate, retryAfter: wait}
	}
	return nil
}

// apply sets the bucket by q. What a changed quota adds is filled with time: a reload is no gift.
func (s *share) apply(q *Quota, now time.Time) {
	switch {
	case s.quota == q:
	case s.bucket == nil:
		s.bucket = rate.NewLimiter(rate.Limit(q.Rate), q.Burst)
	default:
		s.bucket.SetLimitAt(now, rate.Limit(q.Rate))
		s.bucket.SetBurstAt(now, q.Burst)
	}
	s.quota = q
}

// take takes a request's part, which q has not refused, and returns the share that is to be given back to; nil: none is.
func (s *share) take(q *Quota, now time.Time) *share {
	if s == nil || q == nil {
		return nil
	}
	if q.Rate > 0 {
		s.bucket.AllowN(now, 1)
	}
	s.underWay++
	return s
}

// giveBack ends a request. s is not locked.
func (s *share) giveBack() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.underWay--
	s.mu.Unlock()
}

// retire marks a share as gone that a fresh one would be equal to, and reports whether it did. s is not locked.
func (s *share) retire(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.bucket == nil || s.bucket.TokensAt(now) >= float64(s.bucket.Burst())
	s.gone = full && s.underWay == 0 && !now.Before(s.pausedUntil)
	return s.gone
}

// shares finds a share by the name of its owner. The names can be any that callers make up: whenever one is added, two others
// are looked at and dropped if nothing is used of them any more, so that there are hardly more than are in use.
type shares struct {
	byName sync.Map // string → *share

	mu   sync.Mutex // guards ring and hand; held by those who add a name
	ring []*share   // all of byName
	hand int        // the next to look at
}

// locked returns the owner's share, locked, and makes it if there is none.
func (s *shares) locked(name string) *share {
	for {
		if known := s.lockedIfKnown(name); known != nil {
			return known
		}
		s.add(name)
	}
}

// lockedIfKnown returns the owner's share, locked, or nil.
func (s *shares) lockedIfKnown(name string) *share {
	found, ok := s.byName.Load(name)
	if !ok {
		return nil
	}
	known := found.(*share)
	known.mu.Lock()
	if known.gone {
		known.mu.Unlock()
		s.byName.CompareAndDelete(name, known) // it is about to be: rather than wait for that
		return nil
	}
	return known
}

func (s *shares) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := &share{name: name}
	if _, loaded := s.byName.LoadOrStore(name, fresh); loaded {
		return
	}
	now := time.Now()
	for range 2 {
		s.lookAtNextLocked(now)
	}
	s.ring = append(s.ring, fresh)
}

// lookAtNextLocked drops the share under the hand if it can, and moves on. The last of the ring takes its place: being young it
// is likely in use, and is looked at in the next round.
func (s *shares) lookAtNextLocked(now time.Time) {
	if len(s.ring) == 0 {
		return
	}
	at := s.hand % len(s.ring)
	s.hand = at + 1
	one := s.ring[at]
	if !one.retire(now) {
		return
	}
	s.byName.CompareAndDelete(one.name, one)
	last := len(s.ring) - 1
	s.ring[at], s.ring[last] = s.ring[last], nil
	s.ring = s.ring[:last]
}
