package authflow

import (
	"context"
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Broker owns every connection of every integration. All methods may be called concurrently.
type Broker struct{ cfg Config }

// New returns a Broker. It starts nothing: see Run.
func New(cfg Config) (*Broker, error) { return &Broker{cfg}, nil }

// SetIntegrations replaces the integrations. Flights that have begun end with the ones that they began with; no token is lost.
func (b *Broker) SetIntegrations(list []*Integration) error { panic("skeleton") }

// Integrations returns the integrations, sorted by name.
func (b *Broker) Integrations() []*Integration { panic("skeleton") }

// Integration returns the integration of that name.
func (b *Broker) Integration(name string) (*Integration, bool) { panic("skeleton") }

// Credential is a usable access token and whose it is. It is a small value; its secret is behind methods.
type Credential struct {
	Slot tokenstore.Slot // whose token it really is: the org's own, or Global after a fallback
	snap *snapshot
}

type snapshot struct {
	rec    *tokenstore.Record
	header string
}

// NewCredential returns a credential that injects header, for tests of those who use a Broker.
func NewCredential(slot tokenstore.Slot, header string) Credential {
	return Credential{Slot: slot, snap: &snapshot{header: header}}
}

// Header returns the ready value to inject, such as "Bearer …".
func (c Credential) Header() string { return c.snap.header }

// Token returns a usable credential for the slot: the org's own, or the global one where contract 2.3 allows. It waits at
// most 10 s for a refresh. Every error is an [*Error] or ctx's.
func (b *Broker) Token(ctx context.Context, slot tokenstore.Slot) (Credential, error) {
	panic("skeleton")
}

// Replace returns a newer credential than one that the upstream answered 401 to. It refreshes at most once per connection
// and minute; where no newer token is to be had it returns an error, and the caller passes the upstream's 401 on.
func (b *Broker) Replace(ctx context.Context, rejected Credential) (Credential, error) {
	panic("skeleton")
}

// Run sweeps: it refreshes what is due, retries what could not be stored, follows the Feed and keeps the gauges, until ctx ends.
func (b *Broker) Run(ctx context.Context) { panic("skeleton") }

// Wait waits until no refresh is in flight and every token received is stored, or ctx ends.
func (b *Broker) Wait(ctx context.Context) error { panic("skeleton") }

// Connection returns the state of one connection; one that never connected is NotConnected, not an error.
func (b *Broker) Connection(ctx context.Context, slot tokenstore.Slot) (Connection, error) {
	panic("skeleton")
}

// Connections returns the state of the integration's global connection first, then of every org that is stored or that the
// configuration names, sorted. A record that cannot be read is listed with what is known.
func (b *Broker) Connections(ctx context.Context, integration string) ([]Connection, error) {
	panic("skeleton")
}

// Disconnect forgets a connection, on every replica, and revokes it at the provider where there is a revocation endpoint
// (RFC 7009). Disconnecting nothing is no error.
func (b *Broker) Disconnect(ctx context.Context, slot tokenstore.Slot, by string) error {
	panic("skeleton")
}

// Refresh refreshes a connection now, for an operator: neither held back by back-off nor counted.
func (b *Broker) Refresh(ctx context.Context, slot tokenstore.Slot) (Connection, error) {
	panic("skeleton")
}

// Import stores a refresh token obtained elsewhere as a new grant, proven by one refresh first. A definite refusal is
// ErrGrantRefused and changes nothing.
func (b *Broker) Import(ctx context.Context, slot tokenstore.Slot, refreshToken, by string) (Connection, error) {
	panic("skeleton")
}

// Link is a connect link: whoever opens it may connect exactly one Slot, once.
type Link struct {
	URL       string
	ExpiresAt time.Time
}

// ConnectLink makes a connect link for the slot, spent by a successful connect. life: default 24 h.
func (b *Broker) ConnectLink(ctx context.Context, slot tokenstore.Slot, by string, life time.Duration) (Link, error) {
	panic("skeleton")
}

// Handler serves /oauth/connect/{integration} and /oauth/callback/{integration}.
func (b *Broker) Handler() http.Handler { panic("skeleton") }

// saveGrant stores rec as the slot's new grant, whatever was there, retrying for at most 10 s, and drops what memory held.
func (b *Broker) saveGrant(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record) error {
	panic("skeleton")
}

// newGrant makes the record of a new grant from a token endpoint's answer.
func (b *Broker) newGrant(in *Integration, ep Endpoints, r reply, by string) *tokenstore.Record {
	panic("skeleton")
}
