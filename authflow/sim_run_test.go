package authflow_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// simulation is one episode under way.
type simulation struct {
	plan     *simPlan
	began    time.Time
	provider *authflowtest.Provider
	memory   *storetest.Memory
	mu       sync.Mutex // guards everything below
	busy     int        // what goes on in the background
	replicas [simReplicas]*simReplica
	lives    [simReplicas]int
	all      []*simReplica
	events   []simEvent
	pauses   [simReplicas][]simWindow
	cuts     [simReplicas][]simWindow
	outages  []simWindow
	struck   int // moments of the kind that the plan's strike waits for
	posts    []*simPost
	serves   []simServe
	holders  map[string][]*simReplica // by Record.Write: who has known it
	consents map[tokenstore.Org][]simConsent
	gone     map[tokenstore.Org]bool // a disconnect was asked for
	failed   int                     // requests without a token
	wrong    []string                // what the check found
	losses   []simLoss
	falsely  int // connections that are marked although their grant lives
}

// simConsent is a grant of the provider's that somebody stored, or tried to.
type simConsent struct {
	grant  string
	stored bool // for certain
	by     *simReplica
}

// simulate runs an episode to its end and checks it.
func simulate(t *testing.T, plan *simPlan) *simulation {
	var s *simulation
	synctest.Test(t, func(t *testing.T) {
		s = &simulation{
			plan: plan, began: time.Now(), memory: storetest.NewMemory(),
			holders: map[string][]*simReplica{}, consents: map[tokenstore.Org][]simConsent{}, gone: map[tokenstore.Org]bool{},
			pauses: plan.pauses, cuts: plan.cuts, outages: plan.outages,
		}
		s.memory.Journal = time.Second
		s.provider = authflowtest.NewProvider(authflowtest.Config{
			Refresh: authflowtest.Refresh(plan.class), Grace: plan.grace, Lifetime: plan.life, AccessDies: plan.dies,
		})
		defer s.provider.Close()
		for i := range simReplicas {
			s.start(i)
		}
		s.live()
		s.verdict()
		s.end()
		s.check()
	})
	return s
}

func (s *simulation) now() time.Duration { return time.Since(s.began) }

// integration is the one that all replicas have.
func (s *simulation) integration() *authflow.Integration {
	secret := s.provider.ClientSecret()
	return &authflow.Integration{
		Name: "graph", ClientID: s.provider.ClientID(), ClientSecret: func() string { return secret }, Scopes: []string{"read"},
		Refresh: s.plan.class, RefreshGrace: s.plan.grace, AccessDies: s.plan.dies,
		Resolve: func(tokenstore.Org) (authflow.Endpoints, error) {
			return authflow.Endpoints{AuthorizationURL: s.provider.AuthorizationURL, TokenURL: s.provider.TokenURL}, nil
		},
	}
}

// background runs fn beside everything else.
func (s *simulation) background(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backgroundLocked(fn)
}

func (s *simulation) backgroundLocked(fn func()) {
	s.busy++
	go func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.busy--
		}()
		fn()
	}()
}

// rest waits until nothing goes on in the background.
func (s *simulation) rest() {
	for began := s.now(); ; pass(50 * time.Millisecond) {
		s.mu.Lock()
		busy := s.busy
		s.mu.Unlock()
		switch {
		case busy == 0:
			return
		case s.now()-began > time.Hour:
			panic(fmt.Sprintf("seed %d: something does not end\n%s", s.plan.seed, s.history()))
		}
	}
}

// live does what the plan says, until nothing goes wrong any more.
func (s *simulation) live() {
	for _, org := range s.plan.orgs {
		s.consentTo(s.replicas[0], org)
	}
	s.mu.Lock()
	s.failOverAfterLocked(0)
	s.mu.Unlock()
	for _, act := range s.plan.acts {
		pass(max(act.at-s.now(), 0))
		s.background(func() { s.perform(act) })
	}
	pass(max(s.plan.span-s.now(), 0))
}

// asked returns the replica to ask, or one that lives in its place; nil if none does.
func (s *simulation) asked(index int) *simReplica {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range simReplicas {
		if r := s.replicas[(index+i)%simReplicas]; r.died == 0 {
			return r
		}
	}
	return nil
}

func (s *simulation) perform(act simAct) {
	r := s.asked(act.replica)
	if r == nil {
		return
	}
	r.stall()
	ctx := context.Background()
	if act.hangsUp > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, act.hangsUp)
		defer cancel()
	}
	switch act.what {
	case "use":
		_, _ = s.use(ctx, r, act.org) // it notes how it went
	case "reconnect":
		s.consentTo(r, act.org)
	case "disconnect":
		s.mu.Lock()
		s.gone[act.org] = true
		s.noteLocked(simEvent{what: "is asked to disconnect", who: r, slot: slot(act.org)})
		s.mu.Unlock()
		_ = r.broker.Disconnect(ctx, slot(act.org), "tester") // the store may be away: then it was in vain
	case "refresh":
		s.note(simEvent{what: simForced, who: r, slot: slot(act.org), text: "by an operator"})
		_, _ = r.broker.Refresh(ctx, slot(act.org)) // what matters is what it does to the grant
	case "forget":
		s.note(simEvent{what: "the lease is lost", slot: slot(act.org)})
		s.memory.Forget(slot(act.org))
	}
}

// consentTo gives the org a new grant.
func (s *simulation) consentTo(r *simReplica, org tokenstore.Org) {
	issued := s.provider.Issue(string(org), "read")
	s.mu.Lock()
	at := len(s.consents[org])
	s.consents[org] = append(s.consents[org], simConsent{grant: issued.Grant, by: r})
	s.noteLocked(simEvent{what: "gets a consent", who: r, slot: slot(org)})
	s.mu.Unlock()
	err := r.broker.Consented(context.Background(), slot(org), issued.Access, issued.Refresh, issued.AccessExpires, issued.Scopes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.consents[org][at].stored = err == nil && r.died == 0
}

// consent is the place of a token's grant among the consents of its org, from 1; 0: it is none of them. s.mu may be held.
func (s *simulation) consent(token authflowtest.Token) int {
	for i, c := range s.consents[tokenstore.Org(token.User)] {
		if c.grant == token.Grant {
			return i + 1
		}
	}
	return 0
}

// use makes one request as the proxy does: a token that the upstream refuses is replaced once.
func (s *simulation) use(ctx context.Context, r *simReplica, org tokenstore.Org) (served simServe, err error) {
	asked := s.now()
	cred, err := r.broker.Token(ctx, slot(org))
	if err == nil {
		served = s.serve(r, org, asked, cred)
	}
	if err == nil && !served.alive && r.alive() {
		asked = s.now()
		s.note(simEvent{what: simForced, who: r, slot: slot(org), text: "by an upstream"})
		if cred, err := r.broker.Replace(ctx, cred); err == nil {
			served = s.serve(r, org, asked, cred)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.died != 0, ctx.Err() != nil:
	case err != nil || !served.alive:
		s.failed++
		s.noteLocked(simEvent{what: "fails a request", who: r, slot: slot(org), text: fmt.Sprint(err)})
	}
	return served, err
}

// serve notes a token that a request got.
func (s *simulation) serve(r *simReplica, org tokenstore.Org, asked time.Duration, cred authflow.Credential) simServe {
	token, _ := s.provider.Lookup(cred.Header()[len("Bearer "):])
	s.mu.Lock()
	defer s.mu.Unlock()
	served := simServe{
		who: r, slot: slot(org), asked: asked, at: s.now(), grant: s.consent(token), generation: token.Generation,
		alive: token.Alive, right: token.User == string(org),
	}
	if r.died == 0 {
		s.serves = append(s.serves, served)
		s.noteLocked(simEvent{
			what: "serves", who: r, slot: slot(org), text: fmt.Sprintf("%d.%d alive %v", served.grant, served.generation, served.alive),
		})
	}
	return served
}

// end stops every replica and waits until nothing goes on any more.
func (s *simulation) end() {
	for _, r := range s.all {
		r.stop()
	}
	s.rest()
	for _, r := range s.all {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		if err := r.broker.Wait(ctx); err != nil && r.died == 0 {
			s.wrong = append(s.wrong, fmt.Sprintf("%v does not come to rest: %v", r, err))
		}
		cancel()
	}
	s.rest()
}

// verdict asks, after all is well again, whether each connection still works, and if not, why.
func (s *simulation) verdict() {
	pass(time.Second)
	if s.asked(0) == nil {
		s.start(0)
	}
	pass(35 * time.Second) // all that restarts has
	pass(s.plan.life + time.Minute)
	for _, org := range s.plan.orgs {
		r := s.asked(0)
		served, err := s.use(context.Background(), r, org)
		for try := 0; try < 40 && !served.alive && !errors.Is(err, authflow.ErrReconnect) && !errors.Is(err, authflow.ErrNotConnected); try++ {
			pass(10 * time.Second)
			served, err = s.use(context.Background(), r, org)
		}
		s.judge(org, served, err)
	}
}
