package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/sync/errgroup"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// How a tunnel learns within 5 s that its connection is no more: a Broker looks at the store at most 3.5 s after its last look
// if it is asked every second, behind that question, and tells at the next.
const (
	askEvery   = time.Second
	askTime    = 250 * time.Millisecond // for one connection: who does not know by then is asked again
	asksAtOnce = 32
	cutTime    = 10 * time.Second // for tunnels to end that were closed: a TLS connection may take 5 s
)

// Tunnels are the open WebSockets of the Proxies that follow one another on a reload. Those that share a Tunnels share a Broker
// too. All methods may be called concurrently.
type Tunnels struct {
	open     *prometheus.GaugeVec
	closed   *prometheus.CounterVec
	askEvery time.Duration

	mu     sync.Mutex // guards all below
	all    map[*tunnel]bool
	counts map[string]int // by integration
	rules  *Proxy         // what the tunnels must satisfy; nil: the Proxy that each began with
	quiet  chan struct{}  // closed when the last tunnel has ended; nil when there is none
	over   bool           // no more are let in
}

// NewTunnels registers the tunnels' metrics with reg; nil registers them nowhere.
func NewTunnels(reg prometheus.Registerer) *Tunnels {
	f := promauto.With(reg)
	return &Tunnels{
		open: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bifrost_tunnels",
			Help: "WebSocket tunnels open now, those of which the handshake is under way included.",
		}, []string{"integration"}),
		closed: f.NewCounterVec(prometheus.CounterOpts{
			Name: "bifrost_tunnels_closed_total",
			Help: "WebSocket tunnels that have ended, by reason: peer, idle, lifetime, disconnected, reload or drain.",
		}, []string{"integration", "reason"}),
		askEvery: askEvery,
		all:      make(map[*tunnel]bool),
		counts:   make(map[string]int),
	}
}

// add gives a tunnel of p its place, unless all are taken.
func (ts *Tunnels) add(t *tunnel, p *Proxy) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	name := t.route.Integration
	if ts.over || ts.counts[name] >= t.route.MaxWebSockets {
		return false
	}
	if ts.rules != nil && ts.rules != p && !ts.rules.wouldOpen(t) {
		t.why = byNewRules // a reload overtook the request
	}
	if len(ts.all) == 0 {
		ts.quiet = make(chan struct{})
		go ts.watch(ts.quiet) // ends with the last tunnel
	}
	ts.all[t] = true
	ts.counts[name]++
	ts.open.WithLabelValues(name).Set(float64(ts.counts[name]))
	return true
}

func (ts *Tunnels) remove(t *tunnel, opened bool, why reason) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	name := t.route.Integration
	if opened {
		ts.closed.WithLabelValues(name, string(why)).Inc()
	}
	delete(ts.all, t)
	ts.counts[name]--
	ts.open.WithLabelValues(name).Set(float64(ts.counts[name]))
	if len(ts.all) == 0 {
		close(ts.quiet)
		ts.quiet = nil
	}
}

// closeWhere closes the tunnels that match, and returns how many it found.
func (ts *Tunnels) closeWhere(why reason, match func(*tunnel) bool) int {
	ts.mu.Lock()
	var found []*tunnel
	for t := range ts.all {
		if match(t) {
			found = append(found, t)
		}
	}
	ts.mu.Unlock()
	for _, t := range found {
		t.close(why)
	}
	return len(found)
}

// Follow makes p's rules those of all tunnels, older ones included: those that p would not open are closed, because their
// integration, its websocket permission, its upstream, their caller or its right is gone. It is called when p begins to serve.
func (ts *Tunnels) Follow(p *Proxy) {
	ts.mu.Lock()
	ts.rules = p
	ts.mu.Unlock()
	ts.closeWhere(byNewRules, func(t *tunnel) bool { return !p.wouldOpen(t) })
}

// review closes a tunnel that the present rules would not open: a reload may have overtaken its handshake.
func (ts *Tunnels) review(t *tunnel) {
	ts.mu.Lock()
	p := ts.rules
	ts.mu.Unlock()
	if p != nil && !p.wouldOpen(t) {
		t.close(byNewRules)
	}
}

// wouldOpen reports whether p admits what an older Proxy admitted, and would send it to the same place.
func (p *Proxy) wouldOpen(t *tunnel) bool {
	rt := p.names[t.route.Integration]
	if rt == nil || !rt.WebSocket || !slices.Contains(rt.Methods, http.MethodGet) || !rt.serves(t.org) || !rt.allows(http.MethodGet, t.rest) {
		return false
	}
	if whose := t.credential().Slot.Org; whose != "" && !rt.leadsWhere(t.route, whose) {
		return false
	}
	if !p.guarded {
		return true
	}
	if t.caller == nil {
		return false
	}
	c := p.callers.again(t.caller, t.leaf, time.Now())
	return c != nil && c.uses(rt.Integration) && c.may(t.org, http.MethodGet, t.rest)
}

// Drain waits until every tunnel has ended. When ctx ends it closes those that are left, lets no more in, and waits for their
// requests to end. It returns how many it closed.
func (ts *Tunnels) Drain(ctx context.Context) int {
	if ts.wait(ctx) {
		return 0
	}
	ts.mu.Lock()
	ts.over = true
	ts.mu.Unlock()
	cut := ts.closeWhere(byDrain, func(*tunnel) bool { return true })
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer cancel()
	ts.wait(late)
	return cut
}

// wait reports whether there was no tunnel before ctx ended.
func (ts *Tunnels) wait(ctx context.Context) bool {
	for {
		ts.mu.Lock()
		quiet := ts.quiet
		ts.mu.Unlock()
		if quiet == nil {
			return true
		}
		select {
		case <-quiet:
		case <-ctx.Done():
			return false
		}
	}
}

// watch asks for the tunnels' connections until quiet is closed.
func (ts *Tunnels) watch(quiet <-chan struct{}) {
	tick := time.NewTicker(ts.askEvery)
	defer tick.Stop()
	for {
		select {
		case <-quiet:
			return
		case <-tick.C:
			ts.ask()
		}
	}
}

// ask closes the tunnels whose requests would now go out with another connection's credential, or with none, and those of callers
// whose key, certificate or JWT has ended.
func (ts *Tunnels) ask() {
	bySlot := make(map[tokenstore.Slot][]*tunnel)
	ts.mu.Lock()
	rules := ts.rules
	for t := range ts.all {
		if t.live() {
			slot := tokenstore.Slot{Integration: t.route.Integration, Org: t.org}
			bySlot[slot] = append(bySlot[slot], t)
		}
	}
	ts.mu.Unlock()
	if rules != nil {
		now := time.Now()
		ts.closeWhere(byLifetime, func(t *tunnel) bool { return t.caller != nil && rules.callers.ended(t.caller, t.leaf, now) })
	}
	var asks errgroup.Group // its goroutines end before ask does
	asks.SetLimit(asksAtOnce)
	for slot, tunnels := range bySlot {
		asks.Go(func() error {
			closeOutlived(slot, tunnels)
			return nil
		})
	}
	_ = asks.Wait() // none fails
}

func closeOutlived(slot tokenstore.Slot, tunnels []*tunnel) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	cred, err := tunnels[0].broker.Token(ctx, slot)
	for _, t := range tunnels {
		if err == nil && !cred.SameGrant(t.credential()) || gone(err) {
			t.close(byDisconnect)
		}
	}
}

// gone reports whether a Broker's error says that the connection is no more. That it cannot be told at the moment, or that no
// new token is to be had, does not end what is open.
func gone(err error) bool {
	return errors.Is(err, authflow.ErrNotConnected) || errors.Is(err, authflow.ErrReconnect) ||
		errors.Is(err, authflow.ErrUnresolved) || errors.Is(err, authflow.ErrUnknownIntegration)
}
