package e2e_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	chaosTime = flag.Duration("chaos", 20*time.Second, "how long TestChaos goes on; `make chaos` says 2m")
	chaosSeed = flag.Uint64("chaos.seed", 0, "seed of TestChaos's random events; 0: a new one")
	chaosOnly = flag.String("chaos.only", "", "names of TestChaos's events, the others do not happen; empty: all do")
	chaosLogs = flag.String("chaos.logs", "", "folder for the logs of TestChaos's processes")
)

// What is at stake, and the timing that follows from it. A one-time token's Intent counts as live for tokenTime + 5 s; the lease
// lasts as long.
const (
	chaosOrgs     = 240
	tokenLife     = 5 * time.Second // of access tokens
	tokenTime     = 2 * time.Second // timeouts.token
	holdTime      = tokenTime + 5*time.Second
	takeoverTime  = holdTime + tokenTime + time.Second // until another replica has refreshed what a dead one was refreshing
	settleTime    = time.Minute                        // within which everything must work again when nothing more goes wrong
	chaosPatience = time.Minute
)

// TestChaos lets everything fail that can, again and again, under load: processes are killed, stopped and restarted, Redis hangs
// and fails over, the network is cut and slow. The provider's access tokens live for five seconds, and a refresh token that comes
// twice costs the grant. In the end every connection that was lost must have a proven cause, and every request outside the
// announced outages must have succeeded, but one in a thousand.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (go test -run TestChaos -chaos %v -chaos.seed %d)", seed, *chaosTime, seed)
	c := newChaos(t, seed)
	load, stopLoad := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	c.load(load, &clients)
	c.wreck(*chaosTime)
	c.settle()
	stopLoad()
	clients.Wait()
	c.stopAll()
	c.judge()
}

// settle waits until every connection either works through every replica or says that it needs a new consent, which judge will
// have explained.
func (c *chaos) settle() {
	c.t.Helper()
	began := time.Now()
	c.timeline.note("nothing more goes wrong")
	for _, n := range c.nodes {
		for _, org := range c.orgs {
			var got string
			ok := within1(settleTime-time.Since(began), func() bool {
				got = n.get(c.t.Context(), org).outcome
				return got == "200" || got == "424 needs_reconnect"
			})
			if !ok {
				c.t.Errorf("%s does not work again at %s: %s", org, n.name, got)
			}
		}
	}
	c.t.Log("settled after", time.Since(began).Round(time.Millisecond))
}

// stopAll ends the processes in good order.
func (c *chaos) stopAll() {
	c.t.Helper()
	var all sync.WaitGroup
	for _, n := range c.nodes {
		all.Go(func() { n.terminate() })
	}
	all.Wait()
}

// within1 is Eventually for goroutines that may not end the test.
func within1(limit time.Duration, done func() bool) bool {
	for end := time.Now().Add(limit); ; {
		if done() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		<-time.After(pollTime)
	}
}

// wait waits, and tells whether ctx lasted.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// judge says what was lost and why, and what failed outside the outages.
func (c *chaos) judge() {
	c.t.Helper()
	v := c.newVerdict()
	v.timeline()
	v.connections()
	v.availability()
	v.processes()
	require.Empty(c.t, c.upstream.foreign, "tokens of other orgs at the upstream")
}
