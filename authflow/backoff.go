package authflow

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// When a token endpoint may be asked again.
const (
	retryFirst  = 5 * time.Second // after the first failure; doubled with each further one,
	retryMax    = 5 * time.Minute // up to this
	retryUrgent = 5 * time.Second // while no token is valid, a request may cause a POST so often per connection

	breakAfter = 5               // consecutive failures of one endpoint, after which it is only probed,
	probeMin   = 5 * time.Second // once in probeMin to probeMax
	probeMax   = 15 * time.Second

	clientProbe = time.Minute // a client id or secret that the provider refuses is tried again so often
)

// retryAt returns when to try again after the given number of consecutive failures.
func retryAt(now time.Time, attempts int) time.Time {
	wait := retryMax
	if attempts < 8 {
		wait = min(retryFirst<<(attempts-1), retryMax)
	}
	// Full jitter would let a retry come at once; a quarter is enough to part those that failed together.
	return now.Add(wait - time.Duration(rand.Int64N(int64(wait)/4)))
}

// held says why no refresh may begin now, or nil. It only looks: see [breakers.admit].
func (b *Broker) held(m *managed, c *conn, snap *snapshot, why reason, now time.Time) error {
	if why == refreshByOperator {
		return nil
	}
	ep, err := m.Resolve(c.slot.Org)
	if err != nil {
		return &Error{ErrUnresolved, c.slot, err.Error(), 0}
	}
	if wait := b.breakers.rejectedFor(clientKey(m.Integration, ep), now); wait > 0 {
		return &Error{ErrClient, c.slot, rejectedText, wait}
	}
	if wait := b.breakers.closedFor(ep.TokenURL, now); wait > 0 {
		return &Error{ErrProvider, c.slot, "its token endpoint keeps failing", wait}
	}
	c.mu.Lock()
	failure := c.failure
	c.mu.Unlock()
	if snap.rec != nil {
		failure = snap.rec.Failure
		if in := snap.rec.Intent; in != nil && why == refreshBehind && !m.timing().again(in.Began, now) {
			return &Error{Reason: ErrProvider, Slot: c.slot, Detail: "the outcome of the last refresh is unknown"}
		}
	}
	return backingOff(c.slot, failure, why, now)
}

const rejectedText = "the provider refuses the integration's client id or secret"

// backingOff says how long the last failure holds back an attempt, or nil.
func backingOff(slot tokenstore.Slot, f *tokenstore.Failure, why reason, now time.Time) error {
	if f == nil || f.Dead || why == refreshByOperator {
		return nil
	}
	earliest := f.RetryAt
	if urgent := f.At.Add(retryUrgent); why == refreshNow && !f.Mandated && urgent.Before(earliest) {
		earliest = urgent
	}
	if wait := earliest.Sub(now); wait > 0 {
		return &Error{ErrProvider, slot, f.Text, wait}
	}
	return nil
}

// breakers leave alone what keeps failing: token endpoints, and clients that the provider refuses. The zero value is ready.
type breakers struct {
	mu        sync.Mutex           // guards the maps and what they hold
	endpoints map[string]*breaker  // by token URL
	clients   map[string]time.Time // by clientKey: refused, not to be tried before
}

type breaker struct {
	failures int       // consecutive
	next     time.Time // no POST before; zero: whenever
}

// closedFor returns how long the endpoint is to be left alone.
func (b *breakers) closedFor(url string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.endpoints[url]; e != nil {
		return max(e.next.Sub(now), 0)
	}
	return 0
}

// admit is closedFor, and where it returns 0 for an endpoint that keeps failing, the caller is the one probe.
func (b *breakers) admit(url string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.endpoints[url]
	if e == nil {
		return 0
	}
	if wait := e.next.Sub(now); wait > 0 {
		return wait
	}
	if e.failures >= breakAfter {
		e.next = now.Add(probeMin + rand.N(probeMax-probeMin))
	}
	return 0
}

// note counts an answer of the endpoint. mandated is the provider's Retry-After, or 0.
func (b *breakers) note(url string, failed bool, mandated time.Duration, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !failed {
		delete(b.endpoints, url)
		return
	}
	if b.endpoints == nil {
		b.endpoints = make(map[string]*breaker)
	}
	e := b.endpoints[url]
	if e == nil {
		e = &breaker{}
		b.endpoints[url] = e
	}
	e.failures++
	next := now.Add(mandated)
	if mandated == 0 && e.failures >= breakAfter {
		next = now.Add(probeMin + rand.N(probeMax-probeMin))
	}
	if next.After(e.next) { // another answer does not shorten what the provider asked for
		e.next = next
	}
}

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

// reject remembers that the provider refuses a client; until: when to try again.
func (b *breakers) reject(client string, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.clients == nil {
		b.clients = make(map[string]time.Time)
	}
	b.clients[client] = until
}

// accept forgets a rejection, and tells whether there was one.
func (b *breakers) accept(client string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, was := b.clients[client]
	delete(b.clients, client)
	return was
}
