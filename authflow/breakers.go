package authflow

import (
	"maps"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

const (
	breakAfter  = 5               // consecutive failures of an endpoint or of a host, after which it is only probed,
	probeMin    = 5 * time.Second // once in probeMin to probeMax
	probeMax    = 15 * time.Second
	breakerIdle = 10 * time.Minute // what nobody asks any more is forgotten after so long

	clientProbe   = time.Minute // a client id or secret that the provider refuses is tried again so often, by all replicas together
	clientLook    = time.Second // while another replica tries it, its answer is looked for so often
	rejectionLife = time.Hour   // and is remembered for so long after nobody has tried any more
)

// breakers leave alone what keeps failing: token endpoints, hosts that do not answer at all under whatever URL, and clients that
// the provider refuses. The zero value is ready.
type breakers struct {
	mu        sync.Mutex           // guards the maps and what they hold
	endpoints map[string]*breaker  // by token URL
	hosts     map[string]*breaker  // by host of token URLs
	clients   map[string]time.Time // by clientKey: refused, not to be tried before
}

type breaker struct {
	failures int       // consecutive
	last     time.Time // the last of them
	next     time.Time // no POST before; zero: whenever
}

// finding is what a POST says of where it was sent.
type finding struct {
	failed   bool          // the endpoint is in trouble
	silent   bool          // no answer came: it may be the host
	mandated time.Duration // the provider's Retry-After, or 0
	began    time.Time
}

// closedFor returns how long the endpoint, or its host, is to be left alone.
func (b *breakers) closedFor(url string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.endpoints[url].closed(now), b.hosts[hostOf(url)].closed(now))
}

// admit is closedFor, and where it returns 0 for an endpoint or a host that keeps failing, the caller is the one probe.
func (b *breakers) admit(url string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	endpoint, host := b.endpoints[url], b.hosts[hostOf(url)]
	if wait := max(endpoint.closed(now), host.closed(now)); wait > 0 {
		return wait
	}
	endpoint.probe(now)
	host.probe(now)
	return 0
}

// note counts what came of a POST.
func (b *breakers) note(url string, o finding, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	note(&b.endpoints, url, o.failed, o, now)
	note(&b.hosts, hostOf(url), o.silent, finding{began: o.began}, now)
}

// answered notes that the host answers, whatever it said.
func (b *breakers) answered(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.hosts, hostOf(url))
}

func note(all *map[string]*breaker, key string, failed bool, o finding, now time.Time) {
	if !failed {
		delete(*all, key)
		return
	}
	if *all == nil {
		*all = make(map[string]*breaker)
	}
	e := (*all)[key]
	if e == nil {
		e = &breaker{}
		(*all)[key] = e
	}
	e.failures++
	e.last = now
	next := now.Add(o.mandated)
	if o.mandated == 0 && e.failures >= breakAfter {
		next = nextProbe(o.began) // what failed late tells of when it began: it may be back since
	}
	if next.After(e.next) { // another answer does not shorten what the provider asked for
		e.next = next
	}
}

// closed returns how long no POST is to be made; a nil breaker lets all pass.
func (e *breaker) closed(now time.Time) time.Duration {
	if e == nil {
		return 0
	}
	return max(e.next.Sub(now), 0)
}

func (e *breaker) probe(now time.Time) {
	if e != nil && e.failures >= breakAfter {
		e.next = nextProbe(now)
	}
}

func nextProbe(after time.Time) time.Time { return after.Add(probeMin + rand.N(probeMax-probeMin)) }

func hostOf(tokenURL string) string {
	u, err := url.Parse(tokenURL)
	if err != nil {
		return ""
	}
	return u.Host
}

// forget lets go of what nobody has asked for a while.
func (b *breakers) forget(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	idle := func(_ string, e *breaker) bool { return now.Sub(e.last) > breakerIdle && now.Sub(e.next) > breakerIdle }
	maps.DeleteFunc(b.endpoints, idle)
	maps.DeleteFunc(b.hosts, idle)
	maps.DeleteFunc(b.clients, func(_ string, until time.Time) bool { return now.Sub(until) > rejectionLife })
}

// rejectedFor returns how long a client is to be left alone that the provider refused.
func (b *breakers) rejectedFor(client string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.clients[client].Sub(now), 0)
}

// probe is rejectedFor, and where it returns 0 for a client that was refused, the caller is the one probe.
func (b *breakers) probe(client string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	until, refused := b.clients[client]
	if wait := until.Sub(now); refused && wait > 0 {
		return wait
	}
	if refused {
		b.clients[client] = now.Add(probeMax) // until its answer says more
	}
	return 0
}

// look has a refused client be probed again then.
func (b *breakers) look(client string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, refused := b.clients[client]; refused {
		b.clients[client] = at
	}
}

// reject remembers that the provider refuses a client; until: when to try again.
func (b *breakers) reject(client string, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.clients == nil {
		b.clients = make(map[string]time.Time)
	}
	if until.After(b.clients[client]) {
		b.clients[client] = until
	}
}

// accept forgets a rejection, and tells whether there was one.
func (b *breakers) accept(client string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, was := b.clients[client]
	delete(b.clients, client)
	return was
}
