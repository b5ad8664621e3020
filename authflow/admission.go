package authflow

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// How many refreshes may be at token endpoints at a time, per process. A code exchange is not counted: a browser waits.
const (
	postsAll  = 64 // of all but operators,
	postsEach = 16 // and per token endpoint
	sweepAll  = 32 // by the sweep, out of these: requests find room
	sweepEach = 8
	urgedAll  = 8 // by operators, beside the others
	urgedEach = 4

	waitingMax  = 20_000          // flights that wait for room: a goroutine each, and no more
	crowdedHint = 5 * time.Second // Retry-After when they are too many, or wait for too long
)

// board gets the flight a place for its POST, and tells whether it has one: if not, it has landed. An operator does not wait
// behind the others. What has come to pass while it waited is looked at first.
func (b *Broker) board(ctx context.Context, c *conn, m *managed, f *flight) bool {
	ep, err := m.Resolve(c.slot.Org)
	if err != nil {
		return true // without an endpoint there will be no POST
	}
	waited, err := false, errHurry
	if f.why != refreshByOperator {
		waited, err = b.posts.enter(ctx, &f.place, m.Name, ep.TokenURL, f.hurry)
	}
	if errors.Is(err, errHurry) {
		waited, err = b.urged.enter(ctx, &f.urged, m.Name, ep.TokenURL, nil)
	}
	if err != nil {
		f.land(nil, &Error{ErrPending, c.slot, "too many refreshes are under way", crowdedHint})
		return false
	}
	if !waited {
		return true
	}
	cur := c.snap.Load()
	if cur == nil {
		cur = f.seen
	}
	if b.settled(f, cur) {
		f.land(cur, nil)
		return false
	}
	if err := b.held(m, c, cur, f.urgency(), time.Now()); err != nil {
		f.land(nil, err)
		return false
	}
	return true
}

// leave gives back the place that the flight has.
func (f *flight) leave() {
	f.place.leave()
	f.urged.leave()
}

// errCrowded says that too many wait already.
var errCrowded = errors.New("too many refreshes are waiting")

// admission gives out places for POSTs: at most all, and each per token endpoint. An integration may hold as many places as
// are left free: however many providers hang, under however many token URLs, those of another integration find room. Those for
// whom somebody waits come first, then the integration that holds the least; within one its endpoints take turns.
type admission struct {
	all, each, queue int

	mu      sync.Mutex // guards what follows, and the places
	used    int
	waiting int
	urls    map[string]int   // places taken, by token URL
	lines   map[string]*line // by integration: those that hold a place or wait for one
}

// newAdmission returns an admission with all places, each per token endpoint, and room for queue to wait.
func newAdmission(all, each, queue int) *admission {
	return &admission{all: all, each: each, queue: queue, urls: make(map[string]int), lines: make(map[string]*line)}
}

// line is what one integration holds, and who waits for it.
type line struct {
	used   int
	urgent turns
	behind turns
}

// turns are those who wait, by token URL; the URLs take turns.
type turns struct {
	ring list.List                // of *place lists, each for one URL and not empty
	urls map[string]*list.Element // of ring
}

// place is one flight's place, or its wait for one. It may be had again after leave.
type place struct {
	urgent bool // somebody waits for the flight

	adm              *admission // nil: not asked yet; a place belongs to one admission
	integration, url string
	held             bool
	granted          chan struct{} // closed when held becomes true; nil: nobody waits
	at               *list.Element // in the list of its URL while it waits
}

// enter returns when p is held: at once, if there is room. Otherwise it waits, until ctx ends or hurry is closed.
func (a *admission) enter(ctx context.Context, p *place, integration, url string, hurry <-chan struct{}) (waited bool, err error) {
	a.mu.Lock()
	again := p.adm != nil // it has had its turn, and another replica was at work
	p.adm, p.integration, p.url = a, integration, url
	l := a.lines[integration]
	if l == nil {
		l = &line{}
		a.lines[integration] = l
	}
	if a.roomLocked(l) && a.urls[url] < a.each {
		a.takeLocked(l, p)
		a.mu.Unlock()
		return false, nil
	}
	if a.waiting >= a.queue {
		a.mu.Unlock()
		return false, errCrowded
	}
	a.waiting++
	p.granted = make(chan struct{})
	l.turnsOf(p).push(p, again)
	granted := p.granted
	a.mu.Unlock()

	select {
	case <-granted:
		return true, nil
	case <-hurry:
		err = errHurry
	case <-ctx.Done():
		err = ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.held {
		return true, nil // just then
	}
	l.turnsOf(p).remove(p)
	a.waiting--
	p.granted = nil
	a.forgetLocked(integration, l)
	return true, err
}

// errHurry ends a wait because an operator waits for the flight now.
var errHurry = errors.New("an operator waits")

// raise tells that somebody waits for p from now on.
func (p *place) raise(a *admission) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.urgent {
		return
	}
	waits := p.granted != nil && !p.held
	if waits {
		a.lines[p.integration].behind.remove(p)
	}
	p.urgent = true
	if waits {
		a.lines[p.integration].urgent.push(p, false)
	}
}

// leave gives the place back, if it is held. Only the one who entered may call it.
func (p *place) leave() {
	a := p.adm
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !p.held {
		return
	}
	l := a.lines[p.integration]
	p.held, p.granted = false, nil
	l.used--
	a.used--
	if a.urls[p.url]--; a.urls[p.url] == 0 {
		delete(a.urls, p.url)
	}
	a.forgetLocked(p.integration, l)
	for a.grantLocked() {
	}
}

// roomLocked tells whether the integration may hold one more place, as far as all places go.
func (a *admission) roomLocked(l *line) bool { return l.used < a.all-a.used }

func (a *admission) takeLocked(l *line, p *place) {
	l.used++
	a.used++
	a.urls[p.url]++
	p.held = true
}

// grantLocked gives a place to the next who waits, and tells whether there was one to give.
func (a *admission) grantLocked() bool {
	for _, urgent := range []bool{true, false} {
		var least *line
		var next *place
		for _, l := range a.lines {
			if !a.roomLocked(l) || least != nil && least.used <= l.used {
				continue
			}
			if p := l.turns(urgent).next(a); p != nil {
				least, next = l, p
			}
		}
		if next != nil {
			least.turns(urgent).served(next)
			a.waiting--
			a.takeLocked(least, next)
			close(next.granted)
			return true
		}
	}
	return false
}

func (a *admission) forgetLocked(integration string, l *line) {
	if l.used == 0 && l.urgent.ring.Len() == 0 && l.behind.ring.Len() == 0 {
		delete(a.lines, integration)
	}
}

func (l *line) turns(urgent bool) *turns {
	if urgent {
		return &l.urgent
	}
	return &l.behind
}

func (l *line) turnsOf(p *place) *turns { return l.turns(p.urgent) }

// push has p wait; in front of the others at its URL if it has waited before.
func (t *turns) push(p *place, front bool) {
	e := t.urls[p.url]
	if e == nil {
		if t.urls == nil {
			t.urls = make(map[string]*list.Element)
		}
		e = t.ring.PushBack(list.New())
		t.urls[p.url] = e
	}
	if at := e.Value.(*list.List); front {
		p.at = at.PushFront(p)
	} else {
		p.at = at.PushBack(p)
	}
}

func (t *turns) remove(p *place) {
	e := t.urls[p.url]
	at := e.Value.(*list.List)
	at.Remove(p.at)
	p.at = nil
	if at.Len() == 0 {
		t.ring.Remove(e)
		delete(t.urls, p.url)
	}
}

// next returns the first whose endpoint has room, or nil. Endpoints without room are few: each holds many places.
func (t *turns) next(a *admission) *place {
	for e := t.ring.Front(); e != nil; e = e.Next() {
		if p := e.Value.(*list.List).Front().Value.(*place); a.urls[p.url] < a.each {
			return p
		}
	}
	return nil
}

// served removes p, whose turn it was; its URL goes to the end.
func (t *turns) served(p *place) {
	t.ring.MoveToBack(t.urls[p.url])
	t.remove(p)
}
