package authflow

import (
	"math"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// snapshot is what is known of a connection at one moment. It is immutable.
type snapshot struct {
	in     *Integration
	packed tokenstore.Packed // see record; zero: there is no connection
	header [1]string         // the value ready to inject; see Credential.Values
	plain  bool              // the access token is not in packed: it stands in header, behind "Bearer "
	standing
}

// standing is what an integration makes of a record.
type standing struct {
	soft    instant
	hard    instant
	foreign bool // the grant was made with another client id or token URL: its refresh token goes nowhere
	suspect bool // its refresh token may have been used since a copy of the store was made: it waits for an operator
	renew   bool // a refresh may help, and needs no operator
}

func standingOf(in *Integration, slot tokenstore.Slot, rec *tokenstore.Record) (s standing) {
	soft, hard := thresholds(slot, rec.Refreshed, rec.Token.Expiry)
	s.soft, s.hard = instantOf(soft), instantOf(hard)
	ep, err := in.Resolve(slot.Org)
	s.foreign = err != nil || rec.Client != fingerprint(in, ep)
	if s.foreign && in.Flow == ClientCredentials {
		s.soft = 0 // it can be had for the new client or tenant at once
	}
	s.suspect = suspected(in, rec)
	s.renew = renewable(in, rec) && (!s.foreign || in.Flow == ClientCredentials)
	return s
}

// valid tells whether there is a token that may be used.
func (s *snapshot) valid(now time.Time) bool { return s.known() && s.hard.after(now) }

// known tells whether there is a connection.
func (s *snapshot) known() bool { return s != nil && !s.packed.IsZero() }

// record unpacks the record, which is the caller's own; nil if there is no connection.
func (s *snapshot) record() *tokenstore.Record {
	if !s.known() {
		return nil
	}
	rec := s.packed.Record()
	if s.plain {
		rec.Token.Access = s.header[0][len(bearer):]
	}
	return rec
}

// dueAt tells whether a use at that time starts a refresh.
func (s *snapshot) dueAt(t time.Time) bool { return s.renew && s.soft.before(t) }

// instant is a time in Unix nanoseconds, a third of a time.Time and without its pointer. What is later than 2261 counts as never,
// and what is earlier than 1678 as past.
type instant int64

func instantOf(t time.Time) instant {
	switch year := t.Year(); {
	case year > 2261:
		return math.MaxInt64
	case year < 1678:
		return math.MinInt64
	}
	return instant(t.UnixNano())
}

func (i instant) after(t time.Time) bool { return int64(i) > t.UnixNano() }

func (i instant) before(t time.Time) bool { return int64(i) < t.UnixNano() }

func (i instant) time() time.Time { return time.Unix(0, int64(i)).UTC() }

const bearer = "Bearer "

func newSnapshot(in *Integration, slot tokenstore.Slot, rec *tokenstore.Record) *snapshot {
	s := &snapshot{in: in}
	if rec == nil {
		return s
	}
	s.standing = standingOf(in, slot, rec)
	lean := *rec
	if in.Format != nil {
		s.header[0] = in.Format(rec.Token.Access)
	} else {
		// One string for both: access tokens are most of what memory holds.
		s.header[0], s.plain = bearer+rec.Token.Access, true
		lean.Token.Access = ""
	}
	s.packed = tokenstore.Pack(&lean)
	return s
}

// failureCode returns the code of the last failure; empty: there is none.
func (s *snapshot) failureCode() string {
	if rec := s.record(); rec != nil && rec.Failure != nil {
		return rec.Failure.Code
	}
	return ""
}
