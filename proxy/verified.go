package proxy

import (
	"crypto/sha256"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// verifiedFor is how long a verified token is taken without another look, if its key stays published and it does not expire.
const verifiedFor = time.Minute

// verified is a token that counts. The token itself is not kept.
type verified struct {
	digest [sha256.Size]byte // of the token
	until  time.Time
	key    *publicKey // that has signed it
	keys   *keySet    // which that is one of
	caller *caller
}

// verifiedTable remembers verified tokens: 16,384 at most, each in one of the few places that its digest allows. Reading and
// writing take no lock. Nothing is remembered of tokens that were refused, so that an attacker's cannot push others out.
type verifiedTable [4096][4]atomic.Pointer[verified]

// find returns what is known of a token; nil if nothing is, or not any more.
func (t *verifiedTable) find(digest [sha256.Size]byte, now time.Time) *verified {
	places := t.places(digest)
	for i := range places {
		if v := places[i].Load(); v != nil && v.digest == digest && v.counts(now) {
			return v
		}
	}
	return nil
}

func (v *verified) counts(now time.Time) bool { return now.Before(v.until) && !v.key.gone.Load() }

// put remembers v in the place of itself, of what does not count any more, or of what will soonest not.
func (t *verifiedTable) put(v *verified, now time.Time) {
	places := t.places(v.digest)
	at, first := 0, time.Time{}
	for i := range places {
		old := places[i].Load()
		if old == nil || old.digest == v.digest || !old.counts(now) {
			at = i
			break
		}
		if i == 0 || old.until.Before(first) {
			at, first = i, old.until
		}
	}
	places[at].Store(v)
}

func (t *verifiedTable) places(digest [sha256.Size]byte) *[4]atomic.Pointer[verified] {
	return &t[binary.NativeEndian.Uint64(digest[:])%uint64(len(t))]
}
