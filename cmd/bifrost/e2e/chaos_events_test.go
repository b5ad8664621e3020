package e2e_test

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const (
	storeBack    = 3 * time.Second  // after Redis can be reached again, until a replica asks it
	providerBack = 16 * time.Second // after the provider can be reached again, until a replica's breaker has noticed
)

// wreck breaks things for a while, at random: one replica at a time, and beside that Redis as a whole.
func (c *chaos) wreck(d time.Duration) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() {
		c.repeat(ctx, "replicas", time.Second, 2500*time.Millisecond, []chaosEvent{
			{"kill", c.killNode}, {"stop", c.stopNode}, {"restart", c.restartNode}, {"cut-redis", c.cutFromRedis},
			{"refuse-redis", c.refuseRedis}, {"slow-redis", c.slowRedis}, {"cut-provider", c.cutFromProvider},
			{"slow-provider", c.slowProvider}, {"kill", c.killNode}, {"stop", c.stopNode},
		})
	})
	all.Go(func() {
		c.repeat(ctx, "redis", 2*time.Second, 9*time.Second, []chaosEvent{
			{"failover", c.orderFailover}, {"kill-primary", c.killPrimary}, {"hiccup", c.pauseShortly}, {"stop-primary", c.pausePrimary},
		})
	})
	all.Go(func() { c.revoke(ctx) })
	all.Wait()
}

// chaosEvent is something that goes wrong.
type chaosEvent struct {
	name    string
	happens func(*rand.Rand, *chaosNode)
}

// repeat draws from the events until ctx ends, every one as often as the others, with a pause of gap to twice that in between.
func (c *chaos) repeat(ctx context.Context, who string, first, gap time.Duration, events []chaosEvent) {
	events = slices.DeleteFunc(events, func(e chaosEvent) bool { return *chaosOnly != "" && !strings.Contains(*chaosOnly, e.name) })
	if len(events) == 0 {
		return
	}
	random := c.random(who)
	var bag []int
	for pause := first; wait(ctx, pause); pause = gap + upTo(random, gap) {
		if len(bag) == 0 {
			bag = random.Perm(len(events))
		}
		events[bag[0]].happens(random, c.nodes[random.IntN(len(c.nodes))])
		bag = bag[1:]
	}
}

func (c *chaos) check(err error) {
	if err != nil {
		c.t.Error(err)
	}
}

// A process that dies may have been refreshing: see verdict.holds for what that means for the connections at other replicas.
func (c *chaos) killNode(random *rand.Rand, n *chaosNode) {
	over := c.timeline.announce(n.name, "%s is killed", n.name)
	n.kill()
	<-time.After(upTo(random, 1500*time.Millisecond))
	c.check(n.launch())
	over(time.Second)
}

func (c *chaos) restartNode(random *rand.Rand, n *chaosNode) {
	over := c.timeline.announce(n.name, "%s is terminated", n.name)
	n.terminate()
	<-time.After(upTo(random, time.Second))
	c.check(n.launch())
	over(time.Second)
}

func (c *chaos) stopNode(random *rand.Rand, n *chaosNode) {
	d := time.Second + upTo(random, 7*time.Second)
	over := c.timeline.announce(n.name, "%s stands still for %v", n.name, d.Round(time.Millisecond))
	n.signal(syscall.SIGSTOP)
	<-time.After(d)
	n.signal(syscall.SIGCONT)
	over(storeBack)
}

func (c *chaos) cutFromRedis(random *rand.Rand, n *chaosNode) {
	direction, what := "upstream", "hears nothing of"
	if random.IntN(2) == 0 {
		direction, what = "downstream", "answers nothing to"
	}
	over := c.timeline.announce(n.name, "cut: Redis %s %s", what, n.name)
	undo := drop(direction, n.links.redis...)
	<-time.After(time.Second + upTo(random, 4*time.Second))
	c.check(undo())
	over(storeBack)
}

func (c *chaos) refuseRedis(random *rand.Rand, n *chaosNode) {
	over := c.timeline.announce(n.name, "cut: Redis refuses %s", n.name)
	n.links.refuse()
	<-time.After(time.Second + upTo(random, 4*time.Second))
	c.check(n.links.accept())
	over(storeBack)
}

// slowRedis is no outage.
func (c *chaos) slowRedis(random *rand.Rand, n *chaosNode) {
	delay := 20*time.Millisecond + upTo(random, 60*time.Millisecond)
	c.timeline.note("Redis is slow for %s: %v", n.name, delay.Round(time.Millisecond))
	undo := slow(delay, delay/4, n.links.redis...)
	<-time.After(2*time.Second + upTo(random, 3*time.Second))
	c.check(undo())
	over := c.timeline.announce(n.name, "the slow connections of %s to Redis are closed", n.name)
	over(0)
}

// cutFromProvider swallows what a replica sends to the provider, and lets the answers to what was sent before through: an
// answer that is lost costs a one-time grant whatever a client does, so that nothing would be proven. It lasts longer than a
// POST.
func (c *chaos) cutFromProvider(random *rand.Rand, n *chaosNode) {
	over := c.timeline.announce(n.name, "cut: the provider hears nothing of %s", n.name)
	undo := drop("upstream", n.links.provider)
	<-time.After(tokenTime + time.Second + upTo(random, 3*time.Second))
	c.check(undo())
	over(providerBack)
}

// slowProvider is no outage: between the soft and the hard threshold of a token are two seconds.
func (c *chaos) slowProvider(random *rand.Rand, n *chaosNode) {
	delay := 100*time.Millisecond + upTo(random, 300*time.Millisecond)
	c.timeline.note("the provider is slow for %s: %v", n.name, delay.Round(time.Millisecond))
	undo := slow(delay, delay/4, n.links.provider)
	<-time.After(2*time.Second + upTo(random, 3*time.Second))
	c.check(undo())
	c.timeline.note("over: the provider is slow for %s", n.name)
}

// revoke ends a grant at the provider now and then, as users do.
func (c *chaos) revoke(ctx context.Context) {
	random := c.random("revocations")
	for wait(ctx, 4*time.Second+upTo(random, 4*time.Second)) {
		org := c.orgs[random.IntN(len(c.orgs))]
		c.mu.Lock()
		_, again := c.revoked[org]
		if !again {
			c.revoked[org] = c.timeline.note("the user of %s revokes the grant", org)
		}
		c.mu.Unlock()
		c.idp.RevokeUser(org)
	}
}

// orderFailover has the Sentinel promote the replica of a healthy primary.
func (c *chaos) orderFailover(_ *rand.Rand, _ *chaosNode) {
	old, _ := c.primary()
	over := c.timeline.announce("", "failover: ordered")
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: c.redis.Sentinel.Addr})
	defer func() { c.check(sentinel.Close()) }()
	if err := sentinel.Failover(context.Background(), "main").Err(); err != nil {
		c.timeline.note("the Sentinel refuses: %v", err)
		over(0)
		return
	}
	c.promoted(old, over)
	c.inSync()
}

// killPrimary kills the primary and starts it again once the other has taken over.
func (c *chaos) killPrimary(_ *rand.Rand, _ *chaosNode) {
	old, _ := c.primary()
	over := c.timeline.announce("", "failover: the primary is killed")
	old.Kill()
	c.promoted(old, over)
	old.Restart()
	c.inSync()
}

// pausePrimary stops the primary for so long that the Sentinel takes it for dead. When it wakes, it believes itself to be one
// still.
func (c *chaos) pausePrimary(random *rand.Rand, _ *chaosNode) {
	old, _ := c.primary()
	d := 2*time.Second + upTo(random, 2*time.Second)
	over := c.timeline.announce("", "failover: the primary stands still for %v", d.Round(time.Millisecond))
	old.Pause()
	<-time.After(d)
	old.Resume()
	c.promoted(old, over)
	c.inSync()
}

// pauseShortly stops the primary for less than the Sentinel minds.
func (c *chaos) pauseShortly(random *rand.Rand, _ *chaosNode) {
	old, _ := c.primary()
	d := 50*time.Millisecond + upTo(random, 200*time.Millisecond)
	over := c.timeline.announce("", "the primary stands still for %v", d.Round(time.Millisecond))
	old.Pause()
	<-time.After(d)
	old.Resume()
	over(storeBack)
}

// promoted waits until the Sentinel names another primary, and announces how long what a failover may have lost holds back.
func (c *chaos) promoted(old *storetest.RedisServer, over func(time.Duration)) {
	if !within1(20*time.Second, func() bool { now, ok := c.primary(); return ok && now != old }) {
		c.timeline.note("there was no failover")
		over(storeBack)
		return
	}
	over(takeoverTime)
}

// primary returns the server that the Sentinel names.
func (c *chaos) primary() (*storetest.RedisServer, bool) {
	sentinel := redis.NewSentinelClient(&redis.Options{Addr: c.redis.Sentinel.Addr})
	defer func() { c.check(sentinel.Close()) }()
	address, err := sentinel.GetMasterAddrByName(context.Background(), "main").Result()
	if err == nil && len(address) == 2 && net.JoinHostPort(address[0], address[1]) == c.redis.Replica.Addr {
		return c.redis.Replica, true
	}
	return c.redis.Primary, err == nil
}

// inSync waits until the primary has a replica again: without one the next failover would lose everything.
func (c *chaos) inSync() {
	ok := within1(chaosPatience, func() bool {
		primary, known := c.primary()
		follower := c.redis.Primary
		if primary == follower {
			follower = c.redis.Replica
		}
		client := redis.NewClient(&redis.Options{Addr: follower.Addr})
		defer func() { c.check(client.Close()) }()
		info, err := client.Info(context.Background(), "replication").Result()
		_, port, _ := net.SplitHostPort(primary.Addr)
		return known && err == nil && strings.Contains(info, "master_link_status:up") && strings.Contains(info, "master_port:"+port)
	})
	if !ok {
		c.t.Error("the replica does not follow the primary")
		return
	}
	c.timeline.note("the replica follows the primary")
}

func upTo(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(d)))
}
