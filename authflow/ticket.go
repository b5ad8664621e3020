package authflow

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
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

var realOrg = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// Link is a connect link: whoever opens it may connect exactly one Slot, once. The URL is a secret until then.
type Link struct {
	URL       string
	ExpiresAt time.Time
}

// ticket is what a connect link stands for: the right to connect one Slot, once. It is kept on the Shelf under the random
// value in the link, so that every replica knows it and nobody can make one up.
type ticket struct {
	Slot    tokenstore.Slot
	By      string
	Expires time.Time
}

// ConnectLink makes a connect link for the slot. It can be opened any number of times until it expires or until a connect
// succeeds, which spends it: link scanners do no harm. by is who answers for the connection; life zero is LinkLife.
// Every error is an [*Error]: ErrUnknownIntegration, ErrBadLink or ErrStore.
func (b *Broker) ConnectLink(ctx context.Context, slot tokenstore.Slot, by string, life time.Duration) (Link, error) {
	in, ok := b.Integration(slot.Integration)
	if !ok {
		return Link{}, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	if life == 0 {
		life = LinkLife
	}
	switch {
	case in.Flow == ClientCredentials:
		return Link{}, &Error{Reason: ErrBadLink, Slot: slot, Detail: "the integration connects by itself, with client credentials"}
	case slot.Org != tokenstore.Global && !realOrg.MatchString(string(slot.Org)):
		return Link{}, &Error{Reason: ErrBadLink, Slot: slot, Detail: "the org is not a valid name"}
	case life < 0 || life > MaxLinkLife:
		return Link{}, &Error{Reason: ErrBadLink, Slot: slot, Detail: "the life of a link is more than nothing and at most 30 days"}
	}
	t := ticket{Slot: slot, By: by, Expires: time.Now().Add(life)}
	id := newSecret()
	if err := b.shelveTicket(ctx, id, t); err != nil {
		return Link{}, &Error{Reason: ErrStore, Slot: slot}
	}
	return Link{
		URL:       b.cfg.PublicURL + connectPath(slot.Integration) + "?ticket=" + id,
		ExpiresAt: t.Expires,
	}, nil
}

func connectPath(integration string) string { return "/oauth/connect/" + url.PathEscape(integration) }

func ticketID(id string) string { return "ticket:" + id }

// shelveTicket keeps t a little longer than it can be used to start a consent, so that one begun in its last minute can end.
func (b *Broker) shelveTicket(ctx context.Context, id string, t ticket) error {
	life := time.Until(t.Expires) + consentLife
	if life <= 0 {
		return nil // it has run out meanwhile: there is nothing to keep
	}
	return shelve(ctx, b.cfg.Store, ticketID(id), t, life)
}

// newSecret returns 256 random bits, to be guessed by nobody (RFC 6749 section 10.10).
func newSecret() string {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails: it would crash the process
	return base64.RawURLEncoding.EncodeToString(bits[:])
}

// shelve keeps v on the shelf.
func shelve(ctx context.Context, shelf tokenstore.Shelf, id string, v any, life time.Duration) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return shelf.Put(ctx, id, data, life)
}

// peek returns what the shelf keeps under id and leaves it there, or tokenstore.ErrNotFound.
func peek[T any](ctx context.Context, shelf tokenstore.Shelf, id string) (v T, err error) {
	found, err := shelf.Peek(ctx, id)
	switch {
	case err != nil:
		return v, err
	case found[0] == nil:
		return v, tokenstore.ErrNotFound
	}
	return v, json.Unmarshal(found[0], &v)
}

// take removes and returns what the shelf keeps under id, or tokenstore.ErrNotFound.
func take[T any](ctx context.Context, shelf tokenstore.Shelf, id string) (v T, err error) {
	data, err := shelf.Take(ctx, id)
	if err != nil {
		return v, err
	}
	return v, json.Unmarshal(data, &v)
}
