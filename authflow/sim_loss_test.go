package authflow_test

import (
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// simCause is why a grant was lost.
type simCause string

// The causes. Only the last is a fault of the protocol.
const (
	byCrash    simCause = "crash"    // the replica died after the provider had processed its POST and before the outcome was stored
	byNetwork  simCause = "network"  // the answer to a POST that was processed never came
	byFailover simCause = "failover" // the store lost what it had acknowledged, and nobody lives who knew it
	byProtocol simCause = "protocol"
)

// simCauses lists the causes in the order in which they are shown.
var simCauses = []simCause{byCrash, byNetwork, byFailover, byProtocol}

// simLoss is a grant that was lost.
type simLoss struct {
	org   tokenstore.Org
	cause simCause
}

// lost finds out why a grant was lost, by its place among the consents of the org. s.mu is held.
func (s *simulation) lost(org tokenstore.Org, consent int) {
	grant := s.consents[org][consent-1].grant
	cause := byProtocol
	if refresh, reused := s.reused(grant); reused {
		cause = s.causeOf(refresh)
	} else if s.forgotten(org, grant) {
		cause = byFailover
	}
	if refresh, _ := s.reused(grant); cause == byCrash && !s.takenOver(refresh) {
		s.violated("grant %s/%d is lost by a crash, and nobody took it over inside the grace", org, consent)
	}
	s.losses = append(s.losses, simLoss{org, cause})
	allowed := cause == byCrash && s.plan.crashes || cause == byNetwork && s.plan.destroys || cause == byFailover && s.plan.crashes
	if !allowed {
		s.violated("grant %s/%d is lost by %s", org, consent, cause)
	}
}

// reused returns the refresh token whose second use revoked the grant.
func (s *simulation) reused(grant string) (string, bool) {
	for _, reuse := range s.provider.Reuses() {
		if reuse.Token.Grant == grant && reuse.Token.Kind == authflowtest.Renew {
			return reuse.Token.Value, true
		}
	}
	return "", false
}

// causeOf tells what became of the answers to a token that was used again. If any was stored for good, or could have been, the
// second use was a mistake.
func (s *simulation) causeOf(refresh string) simCause {
	cause := byProtocol
	for _, p := range s.posts {
		if p.refresh == refresh && p.processed > p.deadline {
			return byNetwork // which kept the POST for longer than its sender could wait
		}
	}
	for _, p := range s.posts {
		if p.refresh != refresh || p.issued == "" {
			continue
		}
		switch fate := s.fate(p); {
		case fate == byProtocol:
			return byProtocol
		case cause == byProtocol || fate == byFailover:
			cause = fate
		}
	}
	return cause
}

// takenOver tells whether the refresh token whose holder died was POSTed again inside the grace, or may be excused: nobody lives
// who sweeps, or they had faults of their own.
func (s *simulation) takenOver(refresh string) bool {
	if s.plan.class != authflow.Rotating || !s.plan.sweeping || s.plan.skew != ([simReplicas][2]time.Duration{}) {
		return true
	}
	var first *simPost
	for _, p := range s.posts {
		switch {
		case p.refresh != refresh:
		case first == nil:
			first = p
		case p.sent < first.sent+s.plan.grace:
			return true
		}
	}
	if first == nil || first.who.died == 0 {
		return true
	}
	from, to := first.sent, first.sent+s.plan.grace
	for _, p := range s.posts {
		if p.outcome != granted && p.sent < to && p.sent > from-time.Minute && p != first {
			return true // it may be the endpoint that is left alone
		}
	}
	for _, r := range s.all {
		well := r != first.who && r.born < from && r.livesAt(to)
		for _, w := range slices.Concat(s.outages, s.cuts[r.index], s.pauses[r.index]) {
			well = well && (w.to < from || w.from > to)
		}
		if well {
			return false
		}
	}
	return true
}

// fate is why the token that a POST was redeemed for is nowhere.
func (s *simulation) fate(p *simPost) simCause {
	lost := false
	var holders []*simReplica
	for _, e := range s.events {
		switch {
		case e.what == simSaves && e.rec.Token.Refresh == p.issued:
			lost = false
			holders = append(holders, s.holders[e.rec.Write]...)
		case e.what == simLoses && e.before != nil && e.before.Token.Refresh == p.issued && (e.rec == nil || e.rec.Token.Refresh != p.issued):
			lost = true
		}
	}
	if lost {
		for _, r := range holders {
			if r.died == 0 {
				return byProtocol
			}
		}
		return byFailover
	}
	switch {
	case len(holders) > 0:
		return byProtocol
	case p.outcome == silenced, p.outcome == granted && p.who.died != 0:
		return byCrash
	case p.outcome == granted && s.dropped(p, nil):
		return byCrash // of whatever became of the one that was kept
	case p.outcome == granted:
		return byProtocol
	case p.outcome == onItsWay && p.who.died != 0:
		return byCrash
	}
	return byNetwork
}

// forgotten tells whether a failover took the consent itself away, and nobody lives who knew it.
func (s *simulation) forgotten(org tokenstore.Org, grant string) bool {
	for _, e := range s.events {
		if e.what != simLoses || e.slot.Org != org || e.before == nil {
			continue
		}
		if token, _ := s.provider.Lookup(e.before.Token.Refresh); token.Grant != grant {
			continue
		}
		known := false
		for _, r := range s.holders[e.before.Write] {
			known = known || r.died == 0
		}
		return !known
	}
	return false
}
