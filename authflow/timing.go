package authflow

import (
	"cmp"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Deadlines of one POST to a token endpoint where Integration.TokenTimeout does not say. An early timeout cannot be told from a
// lost token, so that refresh tokens that must not be used twice get more.
const (
	tokenTimeout         = 15 * time.Second
	tokenTimeoutRotating = 20 * time.Second
	tokenTimeoutOneTime  = 30 * time.Second
)

const (
	leaseSlack     = 5 * time.Second  // how much longer than its POST the lease of a reusable token lasts
	intentGrace    = 5 * time.Second  // an Intent counts as live so long after its POST's own deadline
	rotatingLease  = 10 * time.Second // at most: after a crash the next holder comes well inside the grace
	defaultGrace   = 30 * time.Second // what providers of rotating tokens commonly allow
	withoutEnd     = 100 * 365 * 24 * time.Hour
	beatsPerLease  = 4 // heartbeats in the time that a lease lasts,
	beatsOfOneTime = 6 // and where that is long
)

// timing is how the refreshes of one class are paced. What differs is how a second POST of the same refresh token is taken: a
// reusable one may come again at any time, a rotating one within the grace, a one-time one never. So the first two are
// taken over quickly after a crash, and the last is given the time that a slow provider may need.
type timing struct {
	post  time.Duration // deadline of one POST
	lease time.Duration // how long the lease lasts without a heartbeat
	beat  time.Duration // how often it is renewed while a POST is on its way or a token is not stored
	spare time.Duration // so much of the lease must be left when the POST begins
	grace time.Duration // for so long a used refresh token may be used again; 0: never
}

// timing returns how the integration's refreshes are paced. There is no refresh token with client credentials.
func (in *Integration) timing() timing {
	class := in.Refresh
	if in.Flow == ClientCredentials {
		class = Reusable
	}
	switch class {
	case OneTime:
		t := timing{post: cmp.Or(in.TokenTimeout, tokenTimeoutOneTime)}
		t.lease, t.spare = 2*t.post, t.post+storeTime
		t.beat = t.lease / beatsOfOneTime
		return t
	case Rotating:
		// A take-over after a POST and a lease that came to nothing still ends inside the grace.
		t := timing{grace: cmp.Or(in.RefreshGrace, defaultGrace)}
		t.post = min(cmp.Or(in.TokenTimeout, tokenTimeoutRotating), t.grace/3)
		t.lease = min(rotatingLease, t.grace/4)
		t.beat = t.lease / beatsPerLease
		t.spare = t.beat
		return t
	}
	t := timing{post: cmp.Or(in.TokenTimeout, tokenTimeout), grace: withoutEnd}
	t.lease, t.spare = t.post+leaseSlack, t.post+storeTime
	t.beat = t.lease / beatsPerLease
	return t
}

// over returns when a POST that began then has certainly ended, its clock and its holder's being a little apart included.
func (t timing) over(began time.Time) time.Time { return began.Add(t.post + intentGrace) }

// again tells whether a refresh token that was first POSTed then, whatever came of it, may be POSTed once more: the answer must
// come before the provider takes it for a theft.
func (t timing) again(first, now time.Time) bool {
	return t.grace > 0 && !now.Add(t.post).After(first.Add(t.grace))
}

// hasty tells whether a refresh token whose fate is unknown must be POSTed again soon, whether anybody asks for a token or not:
// within the grace that brings a successor, and after it the end of the grant.
func (t timing) hasty() bool { return 0 < t.grace && t.grace < withoutEnd }

// dangling tells whether rec's refresh token is such a one, and it is not too late.
func (t timing) dangling(rec *tokenstore.Record, now time.Time) bool {
	return t.hasty() && rec.Intent != nil && t.again(rec.Intent.Began, now)
}

// exchangeTimeout is the deadline of POSTs that redeem no refresh token.
func (in *Integration) exchangeTimeout() time.Duration {
	switch {
	case in.TokenTimeout > 0:
		return in.TokenTimeout
	case in.Refresh == OneTime:
		return tokenTimeoutOneTime
	case in.Refresh == Rotating:
		return tokenTimeoutRotating
	}
	return tokenTimeout
}
