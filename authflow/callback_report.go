package authflow

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// report writes the one log line of a callback, and its event. Nothing that the browser or the provider sent is in them.
func (c *consents) report(out outcome) {
	log := c.log.With("integration", out.slot.Integration, "result", out.result)
	if out.slot.Org != "" {
		log = log.With("org", string(out.slot.Org))
	}
	if out.by != "" {
		log = log.With("by", out.by)
	}
	if out.reason != "" {
		log = log.With("reason", out.reason)
	}
	if out.link != "" {
		log = log.With("link", out.link)
	}
	switch out.result {
	case resultConnected, resultNoRefresh:
		log.Info("connected", "reconnected", out.replaces)
	case resultAwaiting:
		log.Warn("another account has consented: an operator has to confirm it")
	case resultDenied:
		log.Info("consent denied")
	case resultRefused:
		log.Info("callback refused")
	default:
		log.Warn("connect failed")
	}
	if e := out.event(); c.tells(out, &e) {
		c.Audit(context.Background(), e) // the browser may have hung up
	}
}

// maxTold is how many consents of one link are told that came to nothing, or wait for an operator. Its holder can give and deny as many
// as he likes, and must neither fill a disk nor push what others did out of the connection's history. The log tells of all.
const maxTold = 20

// tells says whether the event of a callback is told, and puts into it that it is the last of its kind.
func (c *consents) tells(out outcome, e *Event) bool {
	switch out.result {
	case resultDenied, resultExchange, resultTicketSpent, resultAwaiting:
	case resultRefused:
		if out.link == "" {
			return c.refusals.lets(time.Now())
		}
	default:
		return true
	}
	n, err := c.countVain(out)
	if err != nil {
		return true
	}
	if n == maxTold {
		e.Detail = strings.TrimPrefix(e.Detail+"; of further consents by this link that change nothing the log alone tells", "; ")
	}
	return n <= maxTold
}

// countVain returns how many consents of a link have come to nothing, or wait, up to one more than are told.
func (c *consents) countVain(out outcome) (n int, err error) {
	id := "vain consents:" + out.link
	err = c.alone(context.Background(), "vain consents by "+out.link, out.slot, func(ctx context.Context) error {
		before, err := peek[int](ctx, c.store, id)
		if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			return err
		}
		if n = before + 1; n > maxTold {
			return nil
		}
		return shelve(ctx, c.store, id, n, MaxLinkLife+consentLife)
	})
	return n, err
}

// event returns what the audit log tells of a callback.
func (out outcome) event() Event {
	e := Event{Action: ActionConnectFailed, Actor: out.by, Slot: out.slot, Link: out.link, Outcome: out.result, Detail: out.reason, Address: out.address}
	if e.Actor == "" {
		e.Actor = Anonymous
	}
	switch out.result {
	case resultConnected, resultNoRefresh:
		e.Action, e.Outcome = ActionConnect, OK
		if out.replaces {
			e.Action = ActionReconnect
		}
		if out.result == resultNoRefresh {
			e.Detail = "the provider gave no refresh token"
		}
	case resultAwaiting:
		e.Action, e.Outcome = ActionAccountPending, OK
	case resultDenied:
		e.Action, e.Outcome, e.Detail = ActionConsentDenied, out.reason, ""
	case resultRefused:
		e.Action = ActionConnectRefused
	}
	return e
}

// ClientAddress returns the address of a request's RemoteAddr, without its port. Headers that say otherwise are not believed.
func ClientAddress(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}
