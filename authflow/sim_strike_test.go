package authflow_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
)

// simStrike is a fault, or two, that come exactly where they hurt: at the nth of the moments of a kind.
type simStrike struct {
	moment simMoment
	n      int
	pause  time.Duration // of the replica that had the moment
	outage time.Duration // of the store
	hang   bool
	lost   time.Duration // what a failover loses; 0: there is none
	after  time.Duration // the failover comes so long after the moment
	rush   bool          // the other replicas are asked as soon as it is over
}

// simMoment is a step of a refresh after which nothing may go wrong that the guards do not know of.
type simMoment string

const (
	whenLeased   simMoment = "leased"   // the lease is acquired
	whenDeclared simMoment = "declared" // the Intent is acknowledged
	whenAnswered simMoment = "answered" // the new token has come
	whenPutOff   simMoment = "put off"  // an answer has come that brings none
	whenStored   simMoment = "stored"   // the new token is acknowledged
)

// drawStrike draws a strike in place of the faults that come at any time: together they could outlast every guard.
func (p *simPlan) drawStrike() {
	r := rand.New(rand.NewPCG(p.seed, stream("strike")))
	if !chance(r, 0.35) {
		return
	}
	s := &simStrike{n: 1 + r.IntN(3), hang: chance(r, 0.5), rush: chance(r, 0.7)}
	kinds := []simMoment{whenLeased, whenDeclared, whenAnswered, whenPutOff}
	if p.sweeping { // who does not run does not hear of a failover
		kinds = append(kinds, "declared and lost", "stored and lost", "stored and lost")
	}
	switch kind := oneOf(r, kinds...); kind {
	case whenLeased, whenDeclared: // longer than any lease: it must not POST then
		s.moment, s.pause = kind, upTo(r, 5*time.Second, 90*time.Second)
	case whenAnswered:
		s.moment, s.outage = kind, upTo(r, time.Second, p.longest())
	case whenPutOff:
		s.moment, s.pause = kind, upTo(r, 5*time.Second, 40*time.Second)
	case "declared and lost":
		s.moment, s.lost, s.pause = whenDeclared, time.Second, upTo(r, 0, p.postTime()-time.Second)
	case "stored and lost":
		s.moment, s.lost, s.pause = whenStored, time.Second, oneOf(r, 0, upTo(r, 0, 10*time.Second))
		s.after = upTo(r, 0, 500*time.Millisecond)
	}
	p.strike = s
	p.pauses, p.cuts, p.outages, p.failovers = [simReplicas][]simWindow{}, [simReplicas][]simWindow{}, nil, nil
	p.acts = slices.DeleteFunc(p.acts, func(act simAct) bool { return act.what == "forget" })
}

// longest is how long the store may be away while a token that was received is not stored yet. Replicas that run know that the
// store was away, and leave a token to its holder for a while; the others have the lease alone to go by.
func (p *simPlan) longest() time.Duration {
	switch {
	case p.sweeping:
		return 2 * time.Minute
	case p.class == authflow.Rotating:
		return 10 * time.Second
	}
	return 45 * time.Second
}

// strikes notes a moment, and lets the strike come that it was waited for with.
func (r *simReplica) strikes(moment simMoment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.plan.strike
	if s == nil || s.moment != moment || r.now() >= r.plan.span || r.died != 0 {
		return
	}
	if r.struck++; r.struck != s.n {
		return
	}
	for _, p := range r.posts {
		if p.who == r && p.ended == 0 && moment != whenAnswered && s.pause > 0 {
			r.struck-- // it would stand still with an answer that it has not read: that is no matter of the protocol
			return
		}
	}
	r.noteLocked(simEvent{what: "is struck", who: r, text: fmt.Sprintf("%s: %+v", moment, *s)})
	now := r.now()
	if s.pause > 0 {
		r.pauses[r.index] = append(r.pauses[r.index], simWindow{from: now, to: now + s.pause})
	}
	if s.outage > 0 {
		r.outages = append(r.outages, simWindow{now, now + s.outage, s.hang})
	}
	r.backgroundLocked(func() {
		pass(s.after)
		if s.lost > 0 {
			r.failOver(s.lost)
		}
		if !s.rush {
			return
		}
		pass(max(s.outage, 20*time.Millisecond))
		r.rush()
	})
}

// rush asks every replica for every org's token, again and again for a while.
func (s *simulation) rush() {
	for range 20 {
		for i := range simReplicas {
			for _, org := range s.plan.orgs {
				s.background(func() { s.perform(simAct{what: "use", org: org, replica: i}) })
			}
		}
		pass(250 * time.Millisecond)
	}
}
