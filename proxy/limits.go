package proxy

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Limits say how much of an integration may be used. The zero Limits is no limit, but for upstreams that ask an org to wait.
// What they refuse is refused after everything else that is known of the request, so that a request that is not permitted
// takes nothing from those that are.
type Limits struct {
	PerOrg    Quota // of every org; the global connection, where a request asks for it, counts as one
	PerCaller Quota // of every caller; not applied where there are no callers

	// Concurrent is how many requests of all orgs may be under way; 0: unlimited. Requests beyond it are answered 503.
	Concurrent int

	// IgnoreRetryAfter lets requests go on to an upstream that has answered 429 with a Retry-After. Otherwise those of the org
	// that it answered are answered 429 without it, until then or for a minute, whichever is shorter.
	IgnoreRetryAfter bool
}

// Quota is the share of one org or caller. Requests beyond it are answered 429. The zero Quota is unlimited.
type Quota struct {
	Rate       float64 // requests per second, from 0.00001 to 1,000,000; 0: unlimited
	Burst      int     // how many may come at once; 0: as many as Rate, rounded up
	Concurrent int     // how many may be under way, each until the end of its answer; 0: unlimited
}

// What a Rate may be: with any other number, waiting for a request's turn is no time that can be told.
const (
	minRate = 1e-5
	maxRate = 1e6
)

// maxPause bounds for how long an upstream's Retry-After is believed: beyond it, requests are let through to ask again.
const maxPause = time.Minute

// limits are Limits made ready; nil stands for none. So does a nil quota.
type limits struct {
	org, caller *Quota
	concurrent  int64
}

func newLimits(cfg Limits) (*limits, error) {
	l := &limits{concurrent: int64(cfg.Concurrent)}
	var err error
	if l.org, err = newQuota(cfg.PerOrg); err != nil {
		return nil, err
	}
	if l.caller, err = newQuota(cfg.PerCaller); err != nil {
		return nil, err
	}
	switch {
	case cfg.Concurrent < 0:
		return nil, errors.New("a limit is negative")
	case *l == limits{}:
		return nil, nil
	}
	return l, nil
}

func newQuota(q Quota) (*Quota, error) {
	if q.Burst < 0 || q.Concurrent < 0 {
		return nil, errors.New("a limit is negative")
	}
	if q.Rate != 0 && !(minRate <= q.Rate && q.Rate <= maxRate) { // nor is it NaN
		return nil, errors.New("a limit's rate is too low or too high")
	}
	if q.Rate > 0 && q.Burst == 0 {
		q.Burst = int(math.Ceil(q.Rate))
	}
	if q.Rate == 0 && q.Concurrent == 0 {
		return nil, nil
	}
	return &q, nil
}

// enter counts the request as one under way in the whole process, if there is room. Nothing else has been done for it yet.
func (x *exchange) enter() error {
	p := x.proxy
	if n := p.usage.underWay.Add(1); p.maxConcurrent > 0 && n > p.maxConcurrent {
		p.usage.underWay.Add(-1)
		return fail(codeOverloaded, "")
	}
	x.entered = true
	return nil
}

// limit takes the request's part of what its org, its caller and the integration have left, or says whose turn it is not. It
// is the last thing that can refuse a permitted request before the Broker is asked.
func (x *exchange) limit() error {
	rt := x.route
	pausing := !rt.Limits.IgnoreRetryAfter && rt.usage.pausing(x.began)
	if rt.limits == nil && !pausing {
		return nil
	}
	caller := ""
	if x.caller != nil {
		caller = x.caller.name
	}
	held, refused := rt.usage.take(rt.limits, pausing, string(x.org), caller)
	if refused != nil {
		return refused // not directly: a nil *failure is no nil error
	}
	x.held = held
	return nil
}

// leave gives back what enter and limit took for as long as the request is under way.
func (x *exchange) leave() {
	if x.entered {
		x.proxy.usage.underWay.Add(-1)
	}
	x.held.release()
}

// heed notes an upstream that asks to wait. Whose credential was sent does not matter: the pause is of the org that the
// request was for.
func (x *exchange) heed(res *http.Response) {
	if res.StatusCode != http.StatusTooManyRequests || x.route.Limits.IgnoreRetryAfter {
		return
	}
	now := time.Now()
	if d := pauseOf(res.Header, now); d > 0 {
		x.route.usage.pause(string(x.org), now.Add(d))
	}
}

// pauseOf reads Retry-After (RFC 9110 section 10.2.3), seconds or a date. What is unusable or past is zero.
func pauseOf(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	seconds, err := strconv.ParseUint(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then it is the largest there is
		return time.Duration(min(seconds, uint64(maxPause/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxPause)
}
