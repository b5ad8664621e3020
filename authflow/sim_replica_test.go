package authflow_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// errSimDead is what reaches the goroutines of a dead replica, so that they end.
var errSimDead = errors.New("this replica is dead")

// simReplica is one life of a replica: a Broker whose store and network are as bad as the plan says.
type simReplica struct {
	*simulation
	index, life int
	broker      *authflow.Broker
	stop        context.CancelFunc // of Run
	born        time.Duration

	// Guarded by simulation.mu.
	died   time.Duration // 0: it lives
	steps  map[string]int
	random map[string]*rand.Rand
	held   map[tokenstore.Slot]bool // leases that it has acquired and not released
}

// start begins a new life of the replica.
func (s *simulation) start(index int) {
	r := &simReplica{simulation: s, index: index, steps: make(map[string]int), random: make(map[string]*rand.Rand), held: make(map[tokenstore.Slot]bool)}
	broker, err := authflow.New(authflow.Config{
		Store:        simStore{r},
		Integrations: []*authflow.Integration{s.integration()},
		PublicURL:    "https://bifrost.test",
		Transport:    simTransport{r},
		Metrics:      prometheus.NewRegistry(),
		PerOrg:       func(int) bool { return false },
	})
	if err != nil {
		panic(err)
	}
	r.broker = broker
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	r.life = s.lives[index]
	s.lives[index]++
	r.born = s.now()
	s.replicas[index] = r
	s.all = append(s.all, r)
	s.noteLocked(simEvent{what: "starts", who: r})
	if s.plan.sweeping {
		s.backgroundLocked(func() { broker.Run(ctx) })
	}
}

// String is "r1", in its second life "r1'".
func (r *simReplica) String() string {
	name := fmt.Sprintf("r%d", r.index)
	for range r.life {
		name += "'"
	}
	return name
}

// alive tells whether the replica has not died.
func (r *simReplica) alive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.died == 0
}

// step is a moment at which a replica can die: before and after whatever it does to the world.
func (r *simReplica) step(kind string) (alive bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.died != 0 {
		return false
	}
	death := r.plan.deaths[r.index]
	if death.n == 0 || r.life > 0 || r.now() >= r.plan.span {
		return true
	}
	r.steps["any"]++
	r.steps[kind]++
	if r.steps[death.kind] < death.n {
		return true
	}
	r.died = r.now()
	r.noteLocked(simEvent{what: "dies", who: r, text: fmt.Sprintf("at step %d of kind %s", death.n, death.kind)})
	r.stop()
	if death.restart > 0 {
		r.backgroundLocked(func() {
			pass(death.restart)
			r.start(r.index)
		})
	}
	return false
}

// stall lasts as long as the replica stands still.
func (r *simReplica) stall() {
	for {
		w, still := r.troubled(&r.pauses[r.index])
		if !still {
			return
		}
		pass(w.to - r.now())
	}
}

// troubled returns the window that the present lies in. Strikes add some.
func (s *simulation) troubled(windows *[]simWindow) (simWindow, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return within(*windows, s.now())
}

// chance decides whether something happens, by a stream of its own for every kind of thing. After the plan's span nothing does.
func (r *simReplica) chance(of string, p float64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now() < r.plan.span && chance(r.streamLocked(of), p)
}

// between draws a duration.
func (r *simReplica) between(of string, shortest, longest time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return upTo(r.streamLocked(of), shortest, longest)
}

// one draws an index below n.
func (r *simReplica) one(of string, n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streamLocked(of).IntN(n)
}

func (r *simReplica) streamLocked(of string) *rand.Rand {
	source := r.random[of]
	if source == nil {
		source = rand.New(rand.NewPCG(r.plan.seed, stream(r.String()+of)))
		r.random[of] = source
	}
	return source
}

// asks checks that a replica does not want a lease for which one of its own flights is at work.
func (r *simReplica) asks(slot tokenstore.Slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[slot] && r.died == 0 && slices.Contains(r.plan.orgs, slot.Org) {
		r.violated("%v has two flights of %v at %v", r, slot.Org, r.now())
	}
}

func (r *simReplica) holds(slot tokenstore.Slot, held bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[slot] = held
}

// ahead is how much the replica's clock is ahead of everybody's.
func (r *simReplica) ahead() time.Duration {
	if r.now() < r.plan.jump {
		return r.plan.skew[r.index][0]
	}
	return r.plan.skew[r.index][1]
}
