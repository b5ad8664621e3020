package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

// Usage is what orgs and callers use at the moment, for Limits to be held against. One Usage outlives every reload: nobody
// gets a fresh share by one, and requests under way stay counted. The zero Usage is ready.
type Usage struct {
	underWay atomic.Int64 // requests of the whole process

	mu           sync.Mutex // guards integrations
	integrations map[string]*usage
}

// usage is what is used of one integration.
type usage struct {
	began     time.Time
	underWay  atomic.Int64 // counted where there is a limit
	pausedFor atomic.Int64 // since began, until the last of all pauses ends; zero: there never was one
	orgs      shares
	callers   shares
}

// integration returns an integration's usage.
func (u *Usage) integration(name string) *usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	known := u.integrations[name]
	if known == nil {
		if u.integrations == nil {
			u.integrations = make(map[string]*usage)
		}
		known = &usage{began: time.Now()}
		u.integrations[name] = known
	}
	return known
}

// pausing reports whether the upstream has asked any org to wait. It is all that a request costs where nothing is limited.
func (u *usage) pausing(now time.Time) bool {
	until := u.pausedFor.Load()
	return until != 0 && now.Sub(u.began) < time.Duration(until)
}

// pause lets no request of the org through until then.
func (u *usage) pause(org string, until time.Time) {
	s := u.orgs.locked(org)
	if s.pausedUntil.Before(until) {
		s.pausedUntil = until
	}
	s.mu.Unlock()
	end := int64(until.Sub(u.began))
	for {
		known := u.pausedFor.Load()
		if known >= end || u.pausedFor.CompareAndSwap(known, end) {
			return
		}
	}
}

// held is what a request has taken for as long as it is under way. The zero held is nothing.
type held struct {
	all         *usage
	org, caller *share
}

func (h held) release() {
	if h.all != nil {
		h.all.underWay.Add(-1)
	}
	h.org.giveBack()
	h.caller.giveBack()
}

// take takes one request's part of the org's share, of the caller's (unless its name is empty) and of the whole. Either all
// have something left, or nothing is taken from any: the shares stay locked until that is known.
func (u *usage) take(l *limits, pausing bool, org, caller string) (held, *failure) {
	var mine, theirs *share
	switch {
	case l != nil && l.org != nil:
		mine = u.orgs.locked(org)
	case pausing:
		mine = u.orgs.lockedIfKnown(org)
	}
	defer mine.unlock()
	if l == nil {
		return held{}, mine.paused(pausing, time.Now())
	}
	if l.caller != nil && caller != "" {
		theirs = u.callers.locked(caller)
	}
	defer theirs.unlock()
	now := time.Now() // after waiting for the locks: a bucket would fill twice by a time that goes back
	if f := mine.paused(pausing, now); f != nil {
		return held{}, f
	}
	if f := mine.refuses(l.org, now, &ofOrg); f != nil {
		return held{}, f
	}
	if f := theirs.refuses(l.caller, now, &ofCaller); f != nil {
		return held{}, f
	}
	var h held
	if l.concurrent > 0 {
		if u.underWay.Add(1) > l.concurrent {
			u.underWay.Add(-1)
			return held{}, fail(codeOverloaded, "This integration has too many requests under way.")
		}
		h.all = u
	}
	h.org, h.caller = mine.take(l.org, now), theirs.take(l.caller, now)
	return h, nil
}
