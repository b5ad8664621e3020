package authflow_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// violated notes that an invariant does not hold.
func (s *simulation) violated(format string, args ...any) {
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

// check goes through the history once it is complete.
func (s *simulation) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.what == simSaves {
			s.checkSave(e)
		}
	}
	s.checkServes()
	s.checkPosts()
	s.checkWriteBack()
}

// checkSave: the store never goes back, a failure overwrites no success, and only a definite refusal kills.
func (s *simulation) checkSave(e simEvent) {
	rec, before := e.rec, e.before
	if before != nil && rec.Grant == before.Grant {
		switch {
		case rec.Generation < before.Generation:
			s.violated("I4: the store goes back: %s", s.line(e))
		case rec.Generation == before.Generation && rec.Token.Access != before.Token.Access && rec.Fence <= before.Fence:
			s.violated("I5: a token gives way to another of its generation: %s", s.line(e))
		}
	}
	if before != nil && rec.Grant == before.Grant && rec.Failure != nil && (before.Failure == nil || !before.Failure.At.Equal(rec.Failure.At)) {
		if !s.ownFailure(e) {
			s.violated("I5: the failure of another token overwrites a success: %s", s.line(e))
		}
	}
	if before != nil && rec.Grant != before.Grant && s.consentOf(rec) < s.consentOf(before) {
		s.violated("I4: an older grant replaces a newer one: %s", s.line(e))
	}
	if rec.Failure == nil || !rec.Failure.Dead || before != nil && before.Failure != nil && before.Failure.Dead {
		return
	}
	for _, p := range s.posts {
		if p.refresh == rec.Token.Refresh && p.outcome == refused && p.ended <= e.at {
			return
		}
	}
	s.violated("I6: marked dead without a refusal: %s", s.line(e))
}

// ownFailure tells whether the failure that a save wrote down is of the very token in it: one that the replica declared an Intent
// for, or that was written down before.
func (s *simulation) ownFailure(e simEvent) bool {
	for _, earlier := range s.events {
		if earlier.what != simSaves || earlier.at > e.at || earlier.rec == e.rec || earlier.rec.Token.Refresh != e.rec.Token.Refresh {
			continue
		}
		if f := earlier.rec.Failure; earlier.who == e.who && earlier.rec.Intent != nil || f != nil && f.At.Equal(e.rec.Failure.At) {
			return true
		}
	}
	return false
}

// checkServes: a request gets its own org's token, and none older than one that the replica had served before it came.
func (s *simulation) checkServes() {
	type key struct {
		who  *simReplica
		slot tokenstore.Slot
	}
	seen := map[key][]simServe{}
	for _, now := range s.serves {
		if !now.right {
			s.violated("I2: %v serves %v with another's token at %v", now.who, now.slot, now.at)
		}
		k := key{now.who, now.slot}
		for _, earlier := range seen[k] {
			if earlier.at < now.asked && (now.grant < earlier.grant || now.grant == earlier.grant && now.generation < earlier.generation) &&
				!s.branched(earlier.at, now.at) {
				s.violated("%v serves %d.%d at %v after it has served %d.%d at %v", now.who,
					now.grant, now.generation, now.at, earlier.grant, earlier.generation, earlier.at)
			}
		}
		seen[k] = append(seen[k], now)
	}
}

// checkPosts: a refresh token is POSTed again only where the outcome is unknown, and never without an Intent.
func (s *simulation) checkPosts() {
	for _, p := range s.posts {
		s.checkNeed(p)
	}
	if s.plan.class == authflow.Reusable {
		return
	}
	for i, p := range s.posts {
		s.checkIntent(p)
		for _, first := range s.posts[:i] {
			if first.refresh == p.refresh {
				s.checkAgain(first, p)
			}
		}
	}
}

// checkNeed: a token that has just been received is not refreshed, unless an operator or an upstream has just asked for it.
func (s *simulation) checkNeed(p *simPost) {
	received := time.Duration(-1)
	for _, e := range s.events {
		switch {
		case e.at > p.sent:
		case e.what == simSaves && e.rec.Token.Refresh == p.refresh && received < 0:
			received = e.at
		case e.what == simForced && s.ofSlot(p, e.slot) && e.at > p.sent-time.Minute:
			return
		}
	}
	for _, first := range s.posts {
		if first.issued == p.refresh {
			received = first.sent // it was stored later, perhaps much
		}
	}
	if received >= 0 && p.sent-received < s.plan.life/4 && s.plan.class != authflow.Reusable {
		s.violated("POST #%d of a token that is %v old", p.id, p.sent-received)
	}
}

// ofSlot tells whether the POST is of that connection.
func (s *simulation) ofSlot(p *simPost, slot tokenstore.Slot) bool {
	token, _ := s.provider.Lookup(p.refresh)
	return token.User == string(slot.Org)
}

// checkIntent: between the last POST of a replica and this one of the same token lies an Intent of its own.
func (s *simulation) checkIntent(p *simPost) {
	declared := false
	for _, e := range s.events {
		switch {
		case e.post == p && e.what == "POSTs":
			if !declared {
				s.violated("I3: POST #%d without an Intent", p.id)
			}
			return
		case e.who != p.who:
		case e.what == simSaves && e.rec.Token.Refresh == p.refresh && e.rec.Intent != nil:
			declared = true
		case e.what == "POSTs" && e.post.refresh == p.refresh:
			declared = false
		}
	}
}

// checkAgain judges a second POST of one token.
func (s *simulation) checkAgain(first, p *simPost) {
	inGrace := s.plan.class == authflow.Rotating && (first.processed == 0 || p.sent < first.processed+s.plan.grace)
	switch {
	case inGrace:
	case first.outcome == granted && first.ended <= p.sent && first.who.livesAt(p.sent) && !s.dropped(first, p):
		s.violated("I3: POST #%d although #%d has succeeded", p.id, first.id)
	case first.ended > p.sent && first.who.livesAt(p.sent) && p.sent < first.deadline:
		s.violated("I3: POST #%d while #%d is on its way", p.id, first.id)
	case first.outcome == unknown && first.ended <= p.sent && s.lasting(p):
		s.violated("I3: POST #%d after the unknown outcome of #%d, while there is something to lose", p.id, first.id)
	}
}

// lasting tells whether the access token could still be used when the POST was sent, by every clock, and nobody had just asked for
// another.
func (s *simulation) lasting(p *simPost) bool {
	var until time.Duration
	for _, e := range s.events {
		switch {
		case e.at > p.sent:
		case e.what == simSaves && e.rec.Token.Refresh == p.refresh:
			until = e.rec.Token.Expiry.Sub(s.began)
		case e.what == simLoses, e.what == simForced && s.ofSlot(p, e.slot) && e.at > p.sent-time.Minute:
			return false
		}
	}
	return p.sent < until-20*time.Second
}

// dropped tells whether the token that first was redeemed for gave way to that of another POST of the same parent, so that it
// is not its outcome that counts.
func (s *simulation) dropped(first, p *simPost) bool {
	for _, e := range s.events {
		if e.what == simSaves && e.rec.Token.Refresh == first.issued {
			return false
		}
	}
	for _, other := range s.posts {
		if other != first && other != p && other.refresh == p.refresh && other.outcome == granted {
			return true
		}
	}
	return false
}

// livesAt tells whether the replica was alive then. s.mu is held.
func (r *simReplica) livesAt(t time.Duration) bool { return r.died == 0 || r.died > t }

// branched tells whether the store failed over in between: then two replicas may hold two successors of one token, and the one
// that is dropped has been served.
func (s *simulation) branched(from, to time.Duration) bool {
	for _, e := range s.events {
		if e.what == simLoses && from-40*time.Second <= e.at && e.at <= to {
			return true
		}
	}
	return false
}

// checkWriteBack: what a failover lost is in the store again in the end, or something later, if anybody lives who knew it.
func (s *simulation) checkWriteBack() {
	for _, e := range s.events {
		if e.what != simLoses || e.before == nil || e.rec == e.before {
			continue
		}
		known := false
		for _, r := range s.holders[e.before.Write] {
			known = known || r.died == 0
		}
		last := s.memory.Peeked(e.slot)
		switch {
		case !known, s.gone[e.slot.Org]:
		case last == nil, s.consentOf(last) < s.consentOf(e.before),
			last.Grant == e.before.Grant && last.Generation < e.before.Generation:
			s.violated("I4: not written back after a failover: %s; in the end there is %s", s.record(e.before), s.record(last))
		}
	}
}

// consentOf is the place of a record's grant among the consents of its org.
func (s *simulation) consentOf(rec *tokenstore.Record) int {
	token, _ := s.provider.Lookup(rec.Token.Refresh)
	return s.consent(token)
}

// judge says what became of a connection.
func (s *simulation) judge(org tokenstore.Org, served simServe, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := 0 // of the consents that were certainly stored
	for i, c := range s.consents[org] {
		if c.stored {
			newest = i + 1
		}
	}
	rec := s.memory.Peeked(slot(org))
	switch {
	case err == nil && served.alive && served.grant >= newest, newest == 0:
	case err == nil && served.alive:
		s.lost(org, newest)
	case s.gone[org]:
	case errors.Is(err, authflow.ErrNotConnected):
		s.lost(org, newest)
	case errors.Is(err, authflow.ErrReconnect) && rec != nil:
		if token, _ := s.provider.Lookup(rec.Token.Refresh); s.provider.GrantAlive(token.Grant) {
			s.falsely++
			s.violated("I6: %s is marked although its grant lives: %s", org, s.record(rec))
			return
		}
		s.lost(org, s.consentOf(rec))
	default:
		s.violated("%s does not recover: %v (alive %v), the store has %s", org, err, served.alive, s.record(rec))
	}
}
