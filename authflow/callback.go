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
	resultNoRefresh    = "no_refresh_token"      // connected, but the provider gave no refresh token
	resultAwaiting     = "awaiting_confirmation" // another account than the connection's: an operator has to confirm it
	resultDenied       = "denied"                // the provider answered with an error
	resultRefused      = "refused"               // not a callback of a consent that this browser began
	resultTicketSpent  = "ticket_spent"
	resultExchange     = "exchange_failed"
	resultStore        = "store_unavailable"
	resultNotSaved     = "not_saved" // the code was exchanged, but the grant could not be stored
	resultChangedSetup = "configuration_changed"
)

var callbackResults = []string{
	resultConnected, resultNoRefresh, resultAwaiting, resultDenied, resultRefused, resultTicketSpent, resultExchange, resultStore, resultNotSaved, resultChangedSetup,
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
	result   string
	slot     tokenstore.Slot // zero Org: it never came to a consent of ours
	by       string
	link     string   // the public id of the connect link that led to it; empty as long as it is not known
	replaces bool     // connected, in place of an earlier grant, alive or dead
	reason   string   // from a closed set, for the log
	problem  *problem // the page to show; nil: connected, or awaiting confirmation
	shown    string   // where the Shelf keeps what to show; empty with a problem
	address  string   // of the client
}

// outcomeOf is what is known of a consent of ours.
func outcomeOf(going consent) outcome {
	return outcome{slot: going.Slot, by: going.By, link: linkOf(going.Ticket)}
}

// fails sets how it ended and what to show.
func (out *outcome) fails(result, reason string, p *problem) {
	out.result, out.reason, out.problem = result, reason, p
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
		out := outcomeOf(going)
		out.fails(resultStore, "", &storeDown)
		return out
	}
	http.SetCookie(w, cookie)
	if in.Issuer != "" && a.iss != in.Issuer { // RFC 9207 section 2.4: errors too, and compared as they are
		out := outcomeOf(going)
		out.fails(resultRefused, "other issuer", &otherIssuer)
		return out
	}
	defer c.ended(ctx, going.Slot)
	if a.err != "" {
		code, text := denial(a.err)
		out := outcomeOf(going)
		out.fails(resultDenied, code, deniedPage(in, going.Slot, code, text))
		return out
	}
	return c.claim(ctx, in, going, a)
}

// ended takes the mark away that a consent is running.
func (c *consents) ended(ctx context.Context, slot tokenstore.Slot) {
	_, _ = c.cfg.Store.Take(ctx, pendingID(slot)) // it expires by itself
}

// claim takes the ticket, so that of all consents that one link has led to a single one can connect, and gives it back if
// this one does not, unless it has been revoked.
func (c *consents) claim(ctx context.Context, in *Integration, going consent, a answer) outcome {
	out := outcomeOf(going)
	ep, err := in.Resolve(going.Slot.Org)
	if err != nil || fingerprint(in, ep) != going.Client || in.Flow == ClientCredentials {
		// A reload has changed the client or where codes go: a code of the old one must not be sent to the new one.
		out.fails(resultChangedSetup, "", &changedSetup)
		return out
	}
	t, err := take[ticket](ctx, c.cfg.Store, ticketID(going.Ticket))
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		out.fails(resultTicketSpent, "", &spentTicket)
		return out
	case err != nil:
		out.fails(resultStore, "", &storeDown)
		return out
	}
	switch revoked, err := c.revoked(ctx, t); {
	case err != nil:
		out.fails(resultStore, "", &storeDown)
	case revoked:
		out.fails(resultTicketSpent, "revoked", &revokedTicket)
		return out
	default:
		c.exchange(ctx, in, ep, going, t, a, &out)
	}
	if out.result == resultConnected || out.result == resultNoRefresh {
		c.spend(ctx, going.Slot, going.Ticket)
	} else if err := c.shelveTicket(ctx, going.Ticket, t); err != nil {
		c.log.Warn("a connect link is lost: it could not be kept after a failed connect", "integration", in.Name, "org", string(going.Slot.Org))
	}
	return out
}

// exchange redeems the code, once, and stores the grant under exactly the connection that the ticket named, or as its candidate.
func (c *consents) exchange(ctx context.Context, in *Integration, ep Endpoints, going consent, t ticket, a answer, out *outcome) {
	m := c.managed(in.Name)
	got := c.endpoint.exchange(ctx, in, ep, a.code, going)
	if got.class != granted || m == nil {
		out.fails(resultExchange, got.code, exchangeFailed(in, got))
		return
	}
	got.account = withRealm(a.realm, got.account)
	rec := c.newGrant(in, ep, got, out.by)
	if got.misidentified != "" {
		c.unwanted(ctx, m, going.Slot, rec)
		out.fails(resultExchange, "id_token", misidentifiedPage(in, got.misidentified))
		return
	}
	c.keepGrant(ctx, m, ep, going, t, rec, out)
}

// unwanted gives rec back, unless it may be of the connection's own account.
func (c *consents) unwanted(ctx context.Context, m *managed, slot tokenstore.Slot, rec *tokenstore.Record) {
	stored, err := c.readBack(ctx, slot)
	if err == nil || errors.Is(err, tokenstore.ErrNotFound) {
		c.giveBack(m, slot, rec, stored)
	}
}

// keepGrant makes rec the connection's grant, or its candidate where the connection is another account's.
func (c *consents) keepGrant(ctx context.Context, m *managed, ep Endpoints, going consent, t ticket, rec *tokenstore.Record, out *outcome) {
	replaced, err := c.saveGrant(ctx, going.Slot, rec, func(stored *tokenstore.Record) error {
		if revoked, err := c.revoked(ctx, t); err == nil && revoked { // not known: it was not a moment ago
			return errLinkRevoked
		}
		return pinned(rec, going.Nonce != "")(stored)
	})
	if errors.Is(err, errLinkRevoked) {
		c.unwanted(ctx, m, going.Slot, rec)
		out.fails(resultTicketSpent, "revoked", &revokedTicket)
		return
	}
	other, waits := errors.AsType[otherAccount](err)
	if waits {
		err = c.await(ctx, m, going.Slot, rec, other.replaces, going.Ticket)
	}
	if err != nil {
		out.fails(resultNotSaved, "", &notSaved)
		return
	}
	c.clearCandidate(ctx, m, going.Slot) // one that waited for the former grant, or this one if a disconnect has overtaken it
	c.accepted(ctx, m, ep)               // good news only: a failed exchange holds no refresh back
	switch out.replaces = replaced; {
	case waits:
		out.result = resultAwaiting
	case rec.Token.Refresh == "":
		out.result = resultNoRefresh
	default:
		out.result = resultConnected
	}
	out.shown = c.shelveResult(ctx, connected{
		Slot:      going.Slot,
		Own:       going.Own,
		Waits:     waits,
		Scopes:    rec.Scopes,
		Missing:   missingScopes(m.Scopes, rec),
		Renewable: rec.Token.Refresh != "",
		Expiry:    rec.Token.Expiry,
	})
}

// refuse is what becomes of a callback that has spent no state. It names no connection: one state, sent again and again, must not
// fill that one's history.
func refuse(in *Integration, reason string, p *problem) outcome {
	return outcome{result: resultRefused, slot: tokenstore.Slot{Integration: in.Name}, reason: reason, problem: p}
}
