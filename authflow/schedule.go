package authflow

import (
	"hash/fnv"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// When a token is renewed. Soft: from here on it is refreshed behind the requests that use it. Hard: from here on it is not
// used any more.
const (
	softShare = 5                // soft is 1/5 of the lifetime before expiry,
	softMin   = 30 * time.Second // at least this,
	softMax   = 10 * time.Minute // at most this, and never more than half the lifetime
	hardMax   = 10 * time.Second // hard is this before expiry, or a tenth of the lifetime if that is less

	idleAfter = 24 * time.Hour // a connection unused for so long is refreshed on use only, or to keep its grant alive
)

// thresholds returns the soft and the hard threshold of a token. Soft is moved later by up to a quarter of its distance,
// by a hash of the Slot: tokens minted together are not refreshed together, and all replicas agree.
func thresholds(slot tokenstore.Slot, received, expiry time.Time) (soft, hard time.Time) {
	life := max(expiry.Sub(received), 0)
	early := min(max(life/softShare, softMin), softMax, life/2)
	early -= time.Duration(float64(early) / 4 * spread(slot))
	return expiry.Add(-early), expiry.Add(-min(hardMax, life/10))
}

// spread returns a number in [0, 1) that depends on the Slot alone.
func spread(slot tokenstore.Slot) float64 {
	h := fnv.New64a()
	h.Write([]byte(slot.Integration))
	h.Write([]byte{0})
	h.Write([]byte(slot.Org))
	// FNV's low bits vary most between similar names.
	return float64(h.Sum64()&0xffffff) / (1 << 24)
}

// due returns when the sweep should look at a connection next; zero: never. The token of a connection in use is renewed
// before it expires. An idle one is left alone, but for as often as keeps its refresh token alive.
func due(in *Integration, slot tokenstore.Slot, rec *tokenstore.Record, now time.Time) time.Time {
	if !renewable(in, rec) {
		return time.Time{}
	}
	soft, hard := thresholds(slot, rec.Refreshed, rec.Token.Expiry)
	if f := rec.Failure; f != nil {
		if !f.Mandated && f.RetryAt.After(hard) && hard.After(now) {
			return hard // the last moment at which a refresh prevents an outage
		}
		return f.RetryAt
	}
	if t := in.timing(); t.dangling(rec, now) {
		return rec.Intent.Deadline.Add(t.lease - t.post - intentGrace) // the end of the lease under which it was declared
	}
	if now.Sub(lastUse(rec)) < idleAfter {
		return soft
	}
	if in.Flow == ClientCredentials {
		return time.Time{} // minted anew on use
	}
	keepAlive := rec.Refreshed.Add(in.IdleLifetime / 3)
	if keepAlive.Before(soft) {
		return soft
	}
	return keepAlive
}

// lastUse returns when the connection was last used, as far as the record knows; a consent counts as a use.
func lastUse(rec *tokenstore.Record) time.Time {
	if rec.Used.After(rec.Connected) {
		return rec.Used
	}
	return rec.Connected
}

// renewable tells whether a new access token can be had without a new consent, and without an operator.
func renewable(in *Integration, rec *tokenstore.Record) bool {
	if in.Flow == ClientCredentials {
		return true
	}
	return rec.Token.Refresh != "" && (rec.Failure == nil || !rec.Failure.Dead) && !suspected(in, rec)
}

// suspected tells whether the record comes from a copy of a store and its refresh token must not be used twice.
func suspected(in *Integration, rec *tokenstore.Record) bool {
	return rec.Suspect && in.timing().grace < withoutEnd
}
