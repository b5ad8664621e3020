package authflow

import (
	"context"
	"net"
	"time"
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
	if out.result != resultRefused || c.refusals.lets(time.Now()) {
		c.Audit(context.Background(), out.event()) // the browser may have hung up
	}
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
