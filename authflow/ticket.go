package authflow

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/url"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// How long a connect link may be used.
const (
	LinkLife    = 24 * time.Hour      // unless told otherwise
	MaxLinkLife = 30 * 24 * time.Hour // at most
	ButtonLife  = 10 * time.Minute    // for a Connect button, whose link is followed at once
)

// ErrBadLink is the Reason of an [*Error] of ConnectLink that refuses what was asked for; its Detail says why.
var ErrBadLink = errors.New("no such connect link can be made")

// Link is a connect link: whoever opens it may connect exactly one Slot, once. The URL is a secret until then.
type Link struct {
	ID        string // names the link in lists and logs, and opens nothing
	URL       string
	ExpiresAt time.Time
}

// ticket is what a connect link stands for: the right to connect one Slot, once. It is kept on the Shelf under the random
// value in the link, so that every replica knows it and nobody can make one up. It is good only together with its entry: see
// links.go.
type ticket struct {
	Slot    tokenstore.Slot
	By      string
	Expires time.Time
	Link    string // its public id; empty: of a release that kept no entries
	Era     string // of the slot's links when it was made: revoking all of them begins another
	Own     bool   // of a Connect button: an operator follows it himself
}

// ConnectLink makes a connect link for the slot, to be handed to whoever may consent. It can be opened any number of times until
// it expires, is revoked, or until a connect succeeds, which spends it: link scanners do no harm. by is who answers for the
// connection; life zero is LinkLife. At most MaxLinks are open per connection. Every error is an [*Error]:
// ErrUnknownIntegration, ErrBadLink or ErrStore.
func (b *Broker) ConnectLink(ctx context.Context, slot tokenstore.Slot, by string, life time.Duration) (Link, error) {
	if life == 0 {
		life = LinkLife
	}
	return b.makeLink(ctx, ticket{Slot: slot, By: by}, life)
}

// ConnectHere makes the connect link of a Connect button, for the browser of the operator who has pressed it: it lives for
// ButtonLife, is not listed, and its pages lead back to the Integrations screen. Its errors are those of ConnectLink.
func (b *Broker) ConnectHere(ctx context.Context, slot tokenstore.Slot, by string) (Link, error) {
	return b.makeLink(ctx, ticket{Slot: slot, By: by, Own: true}, ButtonLife)
}

func (b *Broker) makeLink(ctx context.Context, t ticket, life time.Duration) (Link, error) {
	in, ok := b.Integration(t.Slot.Integration)
	switch {
	case !ok:
		return Link{}, &Error{Reason: ErrUnknownIntegration, Slot: t.Slot}
	case in.Flow == ClientCredentials:
		return Link{}, &Error{Reason: ErrBadLink, Slot: t.Slot, Detail: "the integration connects by itself, with client credentials"}
	case t.Slot.Org != tokenstore.Global && !t.Slot.Org.Valid():
		return Link{}, &Error{Reason: ErrBadLink, Slot: t.Slot, Detail: "the org is not a valid name"}
	case life < 0 || life > MaxLinkLife:
		return Link{}, &Error{Reason: ErrBadLink, Slot: t.Slot, Detail: "the life of a link is more than nothing and at most 30 days"}
	}
	secret := newSecret()
	t.Link, t.Expires = linkOf(secret), time.Now().Add(life)
	err := b.enter(ctx, &t)
	if err == nil {
		if err = b.shelveTicket(ctx, secret, t); err != nil {
			_, _ = b.store.Take(ctx, entryID(t.Slot, t.Link)) // or it is listed as open until it would have expired
		}
	}
	if refusal, ok := errors.AsType[*Error](err); ok {
		return Link{}, refusal
	}
	if err != nil {
		return Link{}, &Error{Reason: ErrStore, Slot: t.Slot}
	}
	return Link{
		ID:        t.Link,
		URL:       b.cfg.PublicURL + connectPath(t.Slot.Integration) + "?ticket=" + secret,
		ExpiresAt: t.Expires,
	}, nil
}

func connectPath(integration string) string { return "/oauth/connect/" + url.PathEscape(integration) }

func ticketID(secret string) string { return "ticket:" + secret }

// linkOf returns the public id of the link with this secret.
func linkOf(secret string) string { return digest("connect link", secret) }

// shelveTicket keeps t a little longer than it can be used to start a consent, so that one begun in its last minute can end.
func (b *Broker) shelveTicket(ctx context.Context, secret string, t ticket) error {
	life := t.life()
	if life <= 0 {
		return nil // it has run out meanwhile: there is nothing to keep
	}
	return shelve(ctx, b.cfg.Store, ticketID(secret), t, life)
}

// life is how long the Shelf keeps what belongs to the ticket.
func (t ticket) life() time.Duration { return time.Until(t.Expires) + consentLife }

// newSecret returns 256 random bits, to be guessed by nobody (RFC 6749 section 10.10).
func newSecret() string {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails: it would crash the process
	return base64.RawURLEncoding.EncodeToString(bits[:])
}
