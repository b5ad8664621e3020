package authflowtest

import "time"

// Behaviour is how the token endpoint treats one POST. The fields combine; the zero Behaviour is honest. A POST is
// processed although the client has gone: that is what real servers do.
type Behaviour struct {
	When func(Post) bool // which POST it is meant for; nil: the next

	Before     time.Duration // wait before processing
	HoldBefore *Gate         // and until the test releases this
	DropBefore bool          // cut the connection without processing

	Instead        *Answer       // answer this without processing
	NumericRefresh bool          // issue a refresh token that is a JSON number
	Rewrite        func(*Answer) // change the answer after processing

	After     time.Duration // wait after processing (or where Instead is set) and before answering
	HoldAfter *Gate         // and until the test releases this
	DropAfter bool          // cut the connection without an answer
	Cut       bool          // cut the connection in the middle of the body
}

// plan is what the endpoint is to do. Provider.mu guards it.
type plan struct {
	next   []Behaviour
	always *Behaviour
}

// Misbehave plans the next POSTs, one Behaviour each, after those planned already.
func (p *Provider) Misbehave(next ...Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan.next = append(p.plan.next, next...)
}

// MisbehaveAlways plans every POST that Misbehave does not, until Behave.
func (p *Provider) MisbehaveAlways(b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan.always = &b
}

// Behave forgets every plan. POSTs that are being held stay held.
func (p *Provider) Behave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plan = plan{}
}

// SetDown makes the in-memory Transport refuse connections, before anything is sent, or accept them again.
func (p *Provider) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// take returns the behaviour planned for the post.
func (l *plan) take(post Post) Behaviour {
	for i, b := range l.next {
		if b.When == nil || b.When(post) {
			l.next = append(l.next[:i:i], l.next[i+1:]...)
			return b
		}
	}
	if l.always != nil && (l.always.When == nil || l.always.When(post)) {
		return *l.always
	}
	return Behaviour{}
}

// wait sleeps and then waits at the gate; Close ends both.
func (p *Provider) wait(d time.Duration, g *Gate) {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.closed:
		}
	}
	if g != nil {
		g.arrive()
		select {
		case <-g.released:
		case <-p.closed:
		}
	}
}

// SlowBefore processes late: the client may have gone when it does.
func SlowBefore(d time.Duration) Behaviour { return Behaviour{Before: d} }

// SlowAfter processes at once and answers late.
func SlowAfter(d time.Duration) Behaviour { return Behaviour{After: d} }

// DropBefore cuts the connection before anything is processed.
func DropBefore() Behaviour { return Behaviour{DropBefore: true} }

// DropAfter processes the POST and cuts the connection without an answer.
func DropAfter() Behaviour { return Behaviour{DropAfter: true} }

// CutBody processes the POST and cuts the connection in the middle of the answer.
func CutBody() Behaviour { return Behaviour{Cut: true} }

// NumericRefresh answers a refresh token that is a JSON number.
func NumericRefresh() Behaviour { return Behaviour{NumericRefresh: true} }
