package authflow

import (
	"context"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const rejectedText = "the provider refuses the integration's client id or secret"

// rejected remembers, for all replicas, that the provider refuses our client and that it is to be left alone until then.
func (b *Broker) rejected(ctx context.Context, m *managed, ep Endpoints, until time.Time) {
	key := clientKey(m.Integration, ep)
	b.breakers.reject(key, until)
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if err := b.store.Put(ctx, rejectionID(key), []byte(until.Format(time.RFC3339)), rejectionLife); err != nil {
		b.log.Debug("other replicas will find out by themselves", "integration", m.Name, "error", err)
	}
}

// clientRefused says why our client is not to be tried now, or nil: then, if it was refused, this flight is the one of all
// replicas that tries it in this minute.
func (b *Broker) clientRefused(ctx context.Context, c *conn, m *managed, ep Endpoints, now time.Time) error {
	key := clientKey(m.Integration, ep)
	until, err := b.sharedRejection(ctx, key)
	shared := err == nil && !until.IsZero()
	if shared {
		b.breakers.reject(key, until)
	}
	if wait := b.breakers.probe(key, now); wait > 0 {
		return &Error{ErrClient, c.slot, rejectedText, wait}
	}
	if !shared {
		return nil
	}
	// The lease is not given back: it ends with the minute. Should another replica find the client in order, it takes the
	// rejection away, and nobody asks for the lease.
	switch _, err := b.acquire(ctx, tokenstore.Slot{Integration: m.Name, Org: tokenstore.Org("@" + rejectionID(key))}, clientProbe); {
	case errors.Is(err, tokenstore.ErrHeld):
		b.breakers.look(key, now.Add(clientLook))
		return &Error{ErrClient, c.slot, rejectedText, clientLook}
	case err != nil:
		return b.readError(c.slot, err)
	}
	return nil
}

// accepted tells the breakers that the endpoint works and knows our client.
func (b *Broker) accepted(ctx context.Context, m *managed, ep Endpoints) {
	b.breakers.note(ep.TokenURL, finding{}, time.Now())
	key := clientKey(m.Integration, ep)
	b.proofs.accept(key, time.Now())
	if !b.breakers.accept(key) {
		return
	}
	b.log.Info("the provider accepts our client again", "integration", m.Name)
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	if _, err := b.store.Take(ctx, rejectionID(key)); err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		b.log.Debug("other replicas will find out by themselves", "integration", m.Name, "error", err)
	}
}

func rejectionID(key string) string { return "client:" + key }

// sharedRejection returns until when a replica asked the others to leave a refused client alone; zero if none has, or it was
// accepted since.
func (b *Broker) sharedRejection(ctx context.Context, key string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTime)
	defer cancel()
	found, err := b.store.Peek(ctx, rejectionID(key))
	if err != nil || found[0] == nil {
		return time.Time{}, err
	}
	return time.Parse(time.RFC3339, string(found[0]))
}

// clientKey identifies a client and its secret at one token endpoint.
func clientKey(in *Integration, ep Endpoints) string {
	secret := ""
	if in.ClientSecret != nil {
		secret = in.ClientSecret()
	}
	return digest(in.ClientID, ep.TokenURL, secret)
}
