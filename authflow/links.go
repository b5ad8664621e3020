package authflow

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// MaxLinks is how many connect links of one connection may be open at a time, those of Connect buttons aside.
const MaxLinks = 50

// ErrNoLink is the Reason of an [*Error] of RevokeLink: the connection has no such open link.
var ErrNoLink = errors.New("no such connect link is open")

// OpenLink is what may be shown of a connect link that can still be used.
type OpenLink struct {
	ID        string // see [Link]
	MadeBy    string
	MadeAt    time.Time
	ExpiresAt time.Time
}

// The Shelf lists nothing, so the links of a connection are kept thrice: the ticket, under the secret; an entry under the
// link's public id, without which the ticket is good for nothing; and a list of the ids. Revoking one removes its entry,
// revoking all begins a new era, which also holds for a link that a failover took out of the list.

// linkList is what the Shelf keeps of all links of one connection.
type linkList struct {
	Era  string
	Open []string // public ids, in the order of their making; what has no entry any more is not open
}

// listLife is longer than that of any ticket that its era must refuse.
const listLife = MaxLinkLife + consentLife + time.Hour

func linkListID(slot tokenstore.Slot) string {
	return "links:" + digest(slot.Integration, string(slot.Org))
}

// entryID names the slot too, so that who may revoke the links of one connection reaches no other's.
func entryID(slot tokenstore.Slot, link string) string {
	return "link:" + digest(slot.Integration, string(slot.Org), link)
}

// enter makes the entry of a new link and sets the ticket's era; a link for others is listed. What it refuses is an [*Error].
func (b *Broker) enter(ctx context.Context, t *ticket) error {
	entry := OpenLink{ID: t.Link, MadeBy: t.By, MadeAt: time.Now().UTC(), ExpiresAt: t.Expires.UTC()}
	keep := func(ctx context.Context) error {
		if t.life() <= 0 {
			return nil
		}
		return shelve(ctx, b.store, entryID(t.Slot, t.Link), entry, t.life())
	}
	if t.Own {
		list, err := b.links(ctx, t.Slot)
		if t.Era = list.Era; err != nil {
			return err
		}
		return keep(ctx)
	}
	return b.changeLinks(ctx, t.Slot, func(ctx context.Context, list *linkList) error {
		open, err := b.entries(ctx, t.Slot, list.Open)
		if err != nil {
			return err
		}
		if len(open) >= MaxLinks {
			return &Error{Reason: ErrBadLink, Slot: t.Slot, Detail: fmt.Sprintf(
				"%d connect links of this connection are open: revoke those that nobody needs, or wait until they expire", len(open))}
		}
		t.Era, list.Open = list.Era, append(idsOf(open), t.Link)
		return keep(ctx) // before it is listed: what has no entry is taken for spent
	})
}

// links returns the connection's list; one that nobody has begun is empty.
func (b *Broker) links(ctx context.Context, slot tokenstore.Slot) (linkList, error) {
	list, err := peek[linkList](ctx, b.store, linkListID(slot))
	if errors.Is(err, tokenstore.ErrNotFound) {
		err = nil
	}
	return list, err
}

// changeLinks applies change to the connection's list, of which nothing is lost if several replicas do so at once.
func (b *Broker) changeLinks(ctx context.Context, slot tokenstore.Slot, change func(context.Context, *linkList) error) error {
	return b.alone(ctx, "links", slot, func(ctx context.Context) error {
		list, err := b.links(ctx, slot)
		if err != nil {
			return err
		}
		if err := change(ctx, &list); err != nil {
			return err
		}
		return shelve(ctx, b.store, linkListID(slot), list, listLife)
	})
}

// entries returns those of the links that are open.
func (b *Broker) entries(ctx context.Context, slot tokenstore.Slot, ids []string) ([]OpenLink, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = entryID(slot, id)
	}
	found, err := b.store.Peek(ctx, keys...)
	if err != nil {
		return nil, err
	}
	var open []OpenLink
	for _, raw := range found {
		if entry := openEntry(raw, time.Now()); entry != nil {
			open = append(open, *entry)
		}
	}
	return open, nil
}

// openEntry reads an entry; nil if the link is not open any more.
func openEntry(raw []byte, now time.Time) *OpenLink {
	var entry OpenLink
	if raw == nil || json.Unmarshal(raw, &entry) != nil || !now.Before(entry.ExpiresAt) {
		return nil
	}
	return &entry
}

func idsOf(links []OpenLink) []string {
	ids := make([]string, len(links))
	for i, link := range links {
		ids[i] = link.ID
	}
	return ids
}

// errLinkRevoked refuses to store what came by a link that was revoked while its code was redeemed, or while the store was away.
var errLinkRevoked = errors.New("the connect link was revoked")

// revoked tells whether the ticket has been revoked since it was made, or spent.
func (b *Broker) revoked(ctx context.Context, t ticket) (bool, error) {
	found, err := b.store.Peek(ctx, linkListID(t.Slot), entryID(t.Slot, t.Link))
	if err != nil {
		return false, err
	}
	var list linkList
	if found[0] != nil {
		if err := json.Unmarshal(found[0], &list); err != nil {
			return false, err
		}
	}
	return list.Era != t.Era || t.Link != "" && found[1] == nil, nil
}

// spend makes the link with this secret useless.
func (b *Broker) spend(ctx context.Context, slot tokenstore.Slot, secret string) {
	for _, id := range []string{ticketID(secret), entryID(slot, linkOf(secret))} {
		if _, err := b.store.Take(ctx, id); err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			b.log.Debug("a connect link that is spent stays until it expires", "connection", slot.String(), "error", err)
		}
	}
}

// ConnectLinks returns the open connect links of the slot, in the order of their making. Those of Connect buttons, which live for
// minutes, are not among them.
func (b *Broker) ConnectLinks(ctx context.Context, slot tokenstore.Slot) ([]OpenLink, error) {
	if b.managed(slot.Integration) == nil {
		return nil, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	list, err := b.links(ctx, slot)
	var open []OpenLink
	if err == nil {
		open, err = b.entries(ctx, slot, list.Open)
	}
	if err != nil {
		return nil, b.readError(slot, err)
	}
	return open, nil
}

// RevokeLink makes one open link of the slot useless, also for a consent that it has led to and that has not come back; or it
// returns ErrNoLink.
func (b *Broker) RevokeLink(ctx context.Context, slot tokenstore.Slot, id string) error {
	if b.managed(slot.Integration) == nil {
		return &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	switch _, err := b.store.Take(ctx, entryID(slot, id)); {
	case errors.Is(err, tokenstore.ErrNotFound):
		return &Error{Reason: ErrNoLink, Slot: slot, Detail: "It has been used, has expired or was revoked, or there never was one of this id."}
	case err != nil:
		return b.readError(slot, err)
	}
	return nil
}

// RevokeLinks does the same to all links of the slot, those of Connect buttons included, and returns how many of the others were
// open.
func (b *Broker) RevokeLinks(ctx context.Context, slot tokenstore.Slot) (int, error) {
	if b.managed(slot.Integration) == nil {
		return 0, &Error{Reason: ErrUnknownIntegration, Slot: slot}
	}
	open := 0
	err := b.changeLinks(ctx, slot, func(ctx context.Context, list *linkList) error {
		links, err := b.entries(ctx, slot, list.Open)
		open = len(links)
		*list = linkList{Era: rand.Text()}
		return err
	})
	if err != nil {
		return 0, b.readError(slot, err)
	}
	return open, nil
}
