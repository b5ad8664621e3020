package main

import (
	"context"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
)

const (
	// persistLimit bounds the wait for refreshes in flight and for tokens that the store has not taken yet. It is generous
	// because what is lost then is a connection: whoever wants to end sooner sends a second signal.
	persistLimit = 10 * time.Minute
	// persistNotice is how often that wait is told in the log.
	persistNotice = 10 * time.Second
	// pagesTimeout lets a callback end its code exchange (30 s) and save the grant (10 s).
	pagesTimeout = 45 * time.Second
	// opsTimeout lets a scrape end.
	opsTimeout = 2 * time.Second
)

// stop ends the process in the order in which nothing is lost: balancers look elsewhere, requests finish, refreshes are
// stored, consents finish, and only then the store closes.
func (p *process) stop(ctx context.Context) error {
	cfg := p.config.Load()
	p.ready.Store(false)
	p.log.Info("bifrost is stopping", "drain_delay", cfg.Proxy.DrainDelay.String(), "drain_timeout", cfg.Proxy.DrainTimeout.String())
	pause(ctx, cfg.Proxy.DrainDelay)
	patience, cancel := context.WithTimeout(ctx, cfg.Proxy.DrainTimeout)
	defer cancel()
	if err := p.listeners.proxy.stop(ctx, cfg.Proxy.DrainTimeout); err != nil {
		p.log.Warn("requests were cut at the end of proxy.drain_timeout", "error", err)
	}
	if cut := p.tunnels.Drain(patience); cut > 0 { // the server has let go of them
		p.log.Warn("tunnels were cut at the end of proxy.drain_timeout", "tunnels", cut)
	}
	_ = p.proxy.Close() // idle connections only
	p.keySets.Close()

	p.sweep() // it would begin refreshes for ever; those that it began are waited for
	failures := []error{p.persist(ctx)}
	if err := p.listeners.auth.stop(ctx, pagesTimeout); err != nil {
		p.log.Warn("pages of the auth listener were cut", "error", err)
	}
	_ = p.listeners.ops.stop(ctx, opsTimeout) // a scrape cut short is no failure
	p.running.Wait()
	failures = append(failures, p.persist(ctx), p.store.Close()) // what the last pages began
	err := errors.Join(failures...)
	p.audit.audited(authflow.ActionStop, outcomeOf(err))
	return err
}

// persist waits until every token received is stored.
func (p *process) persist(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, persistLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- p.broker.Wait(ctx) }() // ends with ctx at the latest
	notice := time.NewTicker(persistNotice)
	defer notice.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return errors.Join(errors.New("tokens could not be stored in time and are lost"), err)
			}
			return nil
		case <-notice.C:
			p.log.Warn("waiting for refreshes in flight to be stored")
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
