package authflow_test

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const simReplicas = 3

// simOptions say what may happen in an episode.
type simOptions struct {
	crashes  bool // replicas die
	destroys bool // the network destroys answers of POSTs that were processed
}

// simPlan is one episode: what it runs on, what is asked, and what goes wrong when. It follows from its seed alone.
type simPlan struct {
	seed uint64
	simOptions
	class    authflow.RefreshClass
	grace    time.Duration // rotating: a used refresh token stays usable for so long
	dies     bool          // a refresh kills the previous access token
	life     time.Duration // of access tokens
	span     time.Duration // after it nothing goes wrong any more
	sweeping bool          // the replicas run: they sweep and hear the Feed
	orgs     []tokenstore.Org
	acts     []simAct // by time

	noise   float64 // how often a store operation meets a small fault
	hostile float64 // how often a POST does
	skew    [simReplicas][2]time.Duration
	jump    time.Duration // when skew changes from the first to the second

	pauses, cuts [simReplicas][]simWindow // the replica stands still; it cannot reach the store
	outages      []simWindow              // nobody reaches the store
	failovers    []simFailover
	strike       *simStrike // nil: none
	deaths       [simReplicas]simDeath
}

// simWindow is a while in which something is wrong.
type simWindow struct {
	from, to time.Duration
	hang     bool // operations wait for their deadline instead of failing at once
}

// simFailover is a moment at which the store loses what it acknowledged in the last while: so long after the nth POST, or after
// the beginning if n is 0.
type simFailover struct {
	n        int
	at, lost time.Duration
}

// simDeath kills a replica at its nth step of a kind; n of 0: it lives.
type simDeath struct {
	kind    string // "any", "save" or "post"
	n       int
	restart time.Duration // so long after; 0: never
}

// simAct is something asked of a replica.
type simAct struct {
	at      time.Duration
	what    string // "use", "reconnect", "disconnect", "refresh" or "forget"
	org     tokenstore.Org
	replica int
	hangsUp time.Duration // its caller's patience; 0: endless
}

// simClasses are tried in turn, so that each gets its share.
var simClasses = []authflow.RefreshClass{authflow.Reusable, authflow.Rotating, authflow.OneTime}

// simulated draws an episode.
func simulated(seed uint64, o simOptions) *simPlan {
	r := rand.New(rand.NewPCG(seed, 0))
	p := &simPlan{seed: seed, simOptions: o, class: simClasses[seed%uint64(len(simClasses))]}
	p.grace = oneOf(r, 30*time.Second, time.Minute, 10*time.Minute)
	p.dies = chance(r, 0.25)
	p.sweeping = chance(r, 0.35)
	p.life = oneOf(r, time.Minute, 2*time.Minute, 5*time.Minute, time.Hour)
	if p.sweeping {
		p.life = oneOf(r, 40*time.Second, time.Minute, 90*time.Second)
	}
	p.orgs = []tokenstore.Org{"acme", "globex"}[:1+r.IntN(2)]
	p.span = time.Duration((2.2 + 1.3*r.Float64()) * float64(p.life))
	p.noise = oneOf(r, 0, 0.02, 0.06)
	p.hostile = oneOf(r, 0.05, 0.15, 0.3)
	p.drawActs(r)
	p.drawFaults(r)
	p.drawStrike()
	return p
}

// drawActs draws what is asked: most of it when tokens are about to expire, and some of it at the same moment.
func (p *simPlan) drawActs(r *rand.Rand) {
	for range 18 + r.IntN(13) {
		at := p.moment(r)
		for range oneOf(r, 1, 1, 1, 3) {
			act := simAct{at: at, what: "use", org: oneOf(r, p.orgs...), replica: r.IntN(simReplicas)}
			if chance(r, 0.15) {
				act.hangsUp = upTo(r, 100*time.Millisecond, 5*time.Second)
			}
			p.acts = append(p.acts, act)
		}
	}
	for what, often := range map[string]float64{"reconnect": 0.15, "disconnect": 0.05, "refresh": 0.1, "forget": 0.1} {
		r := rand.New(rand.NewPCG(p.seed, stream(what))) // a map has no order
		if chance(r, often) {
			at := p.moment(r)
			if what == "reconnect" && chance(r, 0.4) {
				at = upTo(r, 0, 6*time.Second) // by clocks that differ, perhaps before the consent that it replaces
			}
			p.acts = append(p.acts, simAct{at: at, what: what, org: oneOf(r, p.orgs...), replica: r.IntN(simReplicas)})
		}
	}
	slices.SortStableFunc(p.acts, func(x, y simAct) int { return int(x.at - y.at) })
}

// moment draws a time at which something may happen: often around an expiry.
func (p *simPlan) moment(r *rand.Rand) time.Duration {
	if chance(r, 0.4) {
		return upTo(r, 0, p.span)
	}
	expiry := p.life * time.Duration(1+r.IntN(int(p.span/p.life)))
	return min(max(expiry-upTo(r, 0, p.life/3)+upTo(r, 0, 10*time.Second), 0), p.span)
}

// drawFaults draws the large faults. Those that cut a replica off add up to less than the lease of a one-time token.
func (p *simPlan) drawFaults(r *rand.Rand) {
	budget := 45 * time.Second
	window := func(shortest, longest time.Duration) []simWindow {
		d := min(upTo(r, shortest, longest), budget)
		budget -= d
		from := max(p.acts[r.IntN(len(p.acts))].at-upTo(r, 0, 5*time.Second)+upTo(r, 0, 5*time.Second), 0)
		return []simWindow{{from, from + d, chance(r, 0.5)}}
	}
	if chance(r, 0.35) {
		p.pauses[r.IntN(simReplicas)] = window(time.Second, 40*time.Second)
	}
	if chance(r, 0.3) {
		p.outages = window(500*time.Millisecond, 20*time.Second)
	}
	if chance(r, 0.3) {
		p.cuts[r.IntN(simReplicas)] = window(500*time.Millisecond, 20*time.Second)
	}
	if p.sweeping && chance(r, 0.3) { // who does not run does not hear of it
		p.failovers = []simFailover{{at: p.moment(r), lost: upTo(r, 0, time.Second)}}
		if chance(r, 0.6) {
			p.failovers = []simFailover{{n: 1 + r.IntN(6), at: upTo(r, 0, time.Second), lost: upTo(r, 0, time.Second)}}
		}
	}
	if chance(r, 0.5) {
		for i := range p.skew {
			p.skew[i] = [2]time.Duration{upTo(r, -4*time.Second, 4*time.Second), upTo(r, -4*time.Second, 4*time.Second)}
		}
	}
	p.jump = p.moment(r)
	if budget < 45*time.Second {
		// A lease that is lost leaves the Intent alone to guard a POST: for its time, and not for that of a holder who stands still.
		p.acts = slices.DeleteFunc(p.acts, func(act simAct) bool { return act.what == "forget" })
	}
	if !p.crashes {
		return
	}
	for _, i := range r.Perm(simReplicas)[:1+r.IntN(2)] {
		d := simDeath{kind: oneOf(r, "any", "save", "post", "post")}
		d.n = 1 + r.IntN(map[string]int{"any": 120, "save": 16, "post": 9}[d.kind])
		if chance(r, 0.7) {
			d.restart = upTo(r, 50*time.Millisecond, 30*time.Second)
		}
		p.deaths[i] = d
	}
}

// postTime is how long one POST may take.
func (p *simPlan) postTime() time.Duration {
	switch p.class {
	case authflow.OneTime:
		return 30 * time.Second
	case authflow.Rotating:
		return min(20*time.Second, p.grace/3)
	}
	return 15 * time.Second
}

// within returns the window that t lies in.
func within(windows []simWindow, t time.Duration) (simWindow, bool) {
	for _, w := range windows {
		if w.from <= t && t < w.to {
			return w, true
		}
	}
	return simWindow{}, false
}

func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func oneOf[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

func upTo(r *rand.Rand, shortest, longest time.Duration) time.Duration {
	return shortest + time.Duration(r.Int64N(int64(longest-shortest)+1))
}

// stream names a stream of random decisions, so that one more decision of one kind leaves the others as they are.
func stream(name string) (n uint64) {
	for _, c := range name {
		n = n*31 + uint64(c)
	}
	return n
}
