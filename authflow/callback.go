package authflow

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Results of a callback, for the metric: a closed set.
const (
	resultConnected    = "connected"
	resultNoRefresh    = "no_refresh_token" // connected, but the provider gave no refresh token
	resultDenied       = "denied"           // the provider answered with an error
	resultRefused      = "refused"          // not a callback of a consent that this browser began
	resultTicketSpent  = "ticket_spent"
	resultExchange     = "exchange_failed"
	resultStore        = "store_unavailable"
	resultNotSaved     = "not_saved" // the code was exchanged, but the grant could not be stored
	resultChangedSetup = "configuration_changed"
)

var callbackResults = []string{
	resultConnected, resultNoRefresh, resultDenied, resultRefused, resultTicketSpent, resultExchange, resultStore, resultNotSaved, resultChangedSetup,
}

// callbackSlack is what a callback may take beside the exchange: 10 s to store the grant, and the Shelf.
const callbackSlack = 20 * time.Second

// callback ends a consent. Only GET does: a scanner's HEAD must not spend anything, and a POST brings no cookie along.
func (c *consents) callback(w http.ResponseWriter, r *http.Request) {
	in, ok := c.Integration(r.PathValue("integration"))
	if !ok {
		unknownIntegration.write(w)
		return
	}
	if r.Method != http.MethodGet {
		methodNotAllowed(w, "GET")
		return
	}
	out := c.receive(w, r, in)
	out.address = ClientAddress(r.RemoteAddr)
	c.metrics.callbacks.WithLabelValues(in.Name, out.result).Inc()
	c.report(out)
	if out.problem != nil {
		out.problem.write(w)
		return
	}
	SeeOther(w, c.cfg.PublicURL+connectPath(in.Name)+"/done?result="+out.shown)
}

// outcome is how a callback ended.
type outcome struct {
	result  string
	slot    tokenstore.Slot // zero Org: it never came to a consent of ours
	by      string
	reason  string   // from a closed set, for the log
	problem *problem // the page to show; nil: connected
	shown   string   // where the Shelf keeps what to show; empty with a problem

	replaces bool   // there was a connection, alive or dead
	address  string // of the client
}

// receive looks at everything that proves that this browser began this consent before it spends the state, and spends the
// state before it uses the code: whatever arrives a second time, or in another browser, finds nothing and changes nothing.
func (c *consents) receive(w http.ResponseWriter, r *http.Request, in *Integration) outcome {
	a, wrong := readAnswer(r.URL.RawQuery)
	if wrong != "" {
		return refuse(in, wrong, &badCallback)
	}
	cookie := c.cookie(a.state, "", -1)
	cookies := r.CookiesNamed(cookie.Name)
	if len(cookies) == 0 {
		return refuse(in, "no cookie", &otherBrowser)
	}
	going, err := peek[consent](r.Context(), c.cfg.Store, consentID(a.state))
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return refuse(in, "unknown state", &staleCallback)
	case err != nil:
		return outcome{result: resultStore, slot: tokenstore.Slot{Integration: in.Name}, problem: &storeDown}
	case !going.begunBy(cookies):
		return refuse(in, "other cookie", &otherBrowser)
	case going.Slot.Integration != in.Name:
		return refuse(in, "other integration", &badCallback)
	}

	// From here on the consent belongs to this request, also if the browser hangs up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), in.exchangeTimeout()+callbackSlack)
	defer cancel()
	_, err = take[consent](ctx, c.cfg.Store, consentID(a.state))
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return refuse(in, "spent state", &staleCallback)
	case err != nil:
		return outcome{result: resultStore, slot: going.Slot, by: going.By, problem: &storeDown}
	}
	http.SetCookie(w, cookie)
	if in.Issuer != "" && a.iss != in.Issuer { // RFC 9207 section 2.4: errors too, and compared as they are
		return refuse(in, "other issuer", &otherIssuer)
	}
	defer c.ended(ctx, going.Slot)
	if a.err != "" {
		code, text := denial(a.err)
		return outcome{result: resultDenied, slot: going.Slot, by: going.By, reason: code, problem: deniedPage(in, going.Slot, code, text)}
	}
	return c.claim(ctx, in, going, a.code)
}

// ended takes the mark away that a consent is running.
func (c *consents) ended(ctx context.Context, slot tokenstore.Slot) {
	_, _ = c.cfg.Store.Take(ctx, pendingID(slot)) // it expires by itself
}

// claim takes the ticket, so that of all consents that one link has led to a single one can connect, and gives it back if
// this one does not.
func (c *consents) claim(ctx context.Context, in *Integration, going consent, code string) outcome {
	out := outcome{slot: going.Slot, by: going.By}
	ep, err := in.Resolve(going.Slot.Org)
	if err != nil || fingerprint(in, ep) != going.Client || in.Flow == ClientCredentials {
		// A reload has changed the client or where codes go: a code of the old one must not be sent to the new one.
		out.result, out.problem = resultChangedSetup, &changedSetup
		return out
	}
	t, err := take[ticket](ctx, c.cfg.Store, ticketID(going.Ticket))
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		out.result, out.problem = resultTicketSpent, &spentTicket
		return out
	case err != nil:
		out.result, out.problem = resultStore, &storeDown
		return out
	}
	c.exchange(ctx, in, ep, going, code, &out)
	if out.problem != nil {
		if err := c.shelveTicket(ctx, going.Ticket, t); err != nil {
			c.log.Warn("a connect link is lost: it could not be kept after a failed connect", "integration", in.Name, "org", string(going.Slot.Org))
		}
	}
	return out
}

// exchange redeems the code, once, and stores the grant under exactly the connection that the ticket named.
func (c *consents) exchange(ctx context.Context, in *Integration, ep Endpoints, going consent, code string, out *outcome) {
	got := c.endpoint.exchange(ctx, in, ep, code, going.Verifier, going.RedirectURI)
	if got.class != granted {
		out.result, out.reason, out.problem = resultExchange, got.code, exchangeFailed(in, got)
		return
	}
	rec := c.newGrant(in, ep, got, out.by)
	account := c.otherAccount(ctx, going.Slot, rec)
	out.replaces = c.connectedBefore(ctx, going.Slot)
	if err := c.saveGrant(ctx, going.Slot, rec); err != nil {
		out.result, out.problem = resultNotSaved, &notSaved
		return
	}
	if m := c.managed(in.Name); m != nil {
		c.accepted(ctx, m, ep) // good news only: a failed exchange holds no refresh back
	}
	out.result = resultConnected
	if rec.Token.Refresh == "" {
		out.result = resultNoRefresh
	}
	out.shown = c.shelveResult(ctx, connected{
		Slot:         going.Slot,
		Scopes:       rec.Scopes,
		Missing:      missingScopes(in.Scopes, rec),
		Renewable:    rec.Token.Refresh != "",
		Expiry:       rec.Token.Expiry,
		OtherAccount: account,
	})
}

// otherAccount tells whether the connection was another account's until now, where both are known.
func (c *consents) otherAccount(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record) bool {
	old, err := c.cfg.Store.Get(ctx, slot)
	return err == nil && old.Account != "" && rec.Account != "" && old.Account != rec.Account
}

// connectedBefore tells whether the slot has a grant, one that cannot be read included.
func (c *consents) connectedBefore(ctx context.Context, slot tokenstore.Slot) bool {
	_, err := c.cfg.Store.Get(ctx, slot)
	return !errors.Is(err, tokenstore.ErrNotFound)
}

func refuse(in *Integration, reason string, p *problem) outcome {
	return outcome{result: resultRefused, slot: tokenstore.Slot{Integration: in.Name}, reason: reason, problem: p}
}
