package authflow

import (
	"context"
	"maps"
	"sync"
	"time"
)

const (
	proofLife = time.Minute // a client that was accepted so lately is not doubted
	proofWait = time.Second // how long a POST waits for the answer to another one that tells whether the client is accepted
)

// proofs know which clients their providers have accepted lately. Of a client of which that is not known one POST goes first:
// were its secret wrong, all that are due at once would be refused, and the provider might take it for an attack. The zero value
// is ready.
type proofs struct {
	mu     sync.Mutex               // guards what follows
	proven map[string]time.Time     // by clientKey: when it was accepted last
	trying map[string]chan struct{} // by clientKey: closed when the POST that went first is over
}

// await returns when a POST may be made for the client: at once if it was accepted lately, or if nobody tries it. Then others
// wait until done is called. It waits for proofWait at most: an answer that takes longer must not delay all others.
func (p *proofs) await(ctx context.Context, client string) (done func()) {
	timer := time.NewTimer(proofWait)
	defer timer.Stop()
	for {
		other, done := p.first(client)
		if other == nil {
			return done
		}
		select {
		case <-other: // it may have found out nothing
		case <-timer.C:
			return func() {}
		case <-ctx.Done():
			return func() {}
		}
	}
}

// first returns whom to wait for, or nil and what to call in the end.
func (p *proofs) first(client string) (other <-chan struct{}, done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.proven[client]; ok && time.Since(at) < proofLife {
		return nil, func() {}
	}
	if other := p.trying[client]; other != nil {
		return other, nil
	}
	if p.trying == nil {
		p.trying = make(map[string]chan struct{})
	}
	over := make(chan struct{})
	p.trying[client] = over
	return nil, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.trying, client)
		close(over)
	}
}

// accept notes that a provider has accepted the client.
func (p *proofs) accept(client string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proven == nil {
		p.proven = make(map[string]time.Time)
	}
	p.proven[client] = now
}

// forget lets go of what proves nothing any more.
func (p *proofs) forget(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.proven, func(_ string, at time.Time) bool { return now.Sub(at) > proofLife })
}
