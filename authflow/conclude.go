package authflow

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// conclude stores the outcome of a POST made for rec, which is in the store with its Intent, and lands the flight. before is the
// Intent of an earlier attempt whose outcome stays unknown unless this one says more.
func (b *Broker) conclude(ctx context.Context, c *conn, m *managed, f *flight, ep Endpoints, rec *tokenstore.Record, before *tokenstore.Intent, r reply) {
	if r.class == granted {
		// Nothing that takes time comes before storing: until then the token exists here alone.
		b.breakers.note(ep.TokenURL, finding{}, time.Now())
		b.settle(ctx, c, m, f, ep, renewed(m.Integration, c, rec, r, f), rec.Version())
		return
	}
	counted := f.why != refreshByOperator
	b.judge(ctx, m, ep, r, counted)
	now, ours := time.Now(), rec.Intent
	if m.timing().grace == withoutEnd {
		before = nil // a reusable token: what became of it holds nobody back
	}
	var edit func(*tokenstore.Record)
	land := &Error{Slot: c.slot}
	switch r.class {
	case dead:
		edit = func(rec *tokenstore.Record) {
			rec.Failure = &tokenstore.Failure{Code: r.code, Text: r.text, At: now, Attempts: attempts(rec.Failure) + 1, Dead: true}
			land.Reason, land.Detail = ErrReconnect, r.text
			if foreignTo(rec.Intent, ours) && now.Before(rec.Intent.Deadline) {
				// Another holder is redeeming the same token: its answer decides.
				rec.Failure.Dead, rec.Failure.RetryAt = false, rec.Intent.Deadline
				rec.Due = rec.Intent.Deadline
				land.Reason, land.RetryAfter = ErrProvider, rec.Intent.Deadline.Sub(now)
				return
			}
			rec.Intent, rec.Due = nil, time.Time{}
		}
	case rejectedClient:
		edit = func(rec *tokenstore.Record) {
			leaveIntent(rec, ours, before)
			rec.Due = now.Add(clientProbe)
		}
		land.Reason, land.Detail, land.RetryAfter = ErrClient, rejectedText, clientProbe
	default:
		failure := nextFailure(rec.Failure, r, now)
		if last := rec.Failure; last != nil && !counted {
			failure.Attempts, failure.RetryAt, failure.Mandated = last.Attempts, last.RetryAt, last.Mandated
		}
		left := before
		if r.class == ambiguous && m.timing().grace < withoutEnd {
			left = ended(ours, now)
		}
		edit = func(rec *tokenstore.Record) {
			rec.Failure = failure
			leaveIntent(rec, ours, left)
			rec.Due = due(m.Integration, c.slot, rec, now)
		}
		land.Reason, land.Detail, land.RetryAfter = ErrProvider, r.text, max(failure.RetryAt.Sub(now), 0)
	}
	b.fail(ctx, c, m, f, rec, edit, land)
}

// fail writes down why there is no new token, unless someone else has got one meanwhile: then theirs is the outcome.
func (b *Broker) fail(ctx context.Context, c *conn, m *managed, f *flight, rec *tokenstore.Record, edit func(*tokenstore.Record), land *Error) {
	snap, err := b.change(ctx, c, m, rec, edit)
	switch {
	case errors.Is(err, tokenstore.ErrConflict) && snap != nil:
		m.counters.conflict.Inc()
		if snap.valid(time.Now()) {
			f.land(snap, nil)
		} else {
			f.land(nil, b.failed(m, c, f, snap))
		}
		return
	case errors.Is(err, tokenstore.ErrNotFound):
		f.land(nil, &Error{Reason: ErrNotConnected, Slot: c.slot})
		return
	case err != nil:
		// The failure is not lost on this process, and the next attempt meets it again.
		next := *rec
		edit(&next)
		c.advance(newSnapshot(m.Integration, c.slot, &next), rec.Version())
		b.log.Warn("a failed refresh could not be written down", "connection", c.slot.String(), "error", err)
	}
	b.logFailure(c, rec, land)
	f.land(nil, land)
	if err == nil && f.why != refreshByOperator && land.Reason == ErrReconnect { // what an operator asked for, the console tells
		b.Audit(ctx, Event{Action: ActionRefresh, Actor: Itself, Slot: c.slot, Outcome: "needs_reconnect", Detail: snap.failureCode()})
	}
}

// blame is conclude for a first token that did not come: there is no record to write the failure down in.
func (b *Broker) blame(ctx context.Context, c *conn, m *managed, f *flight, ep Endpoints, r reply) {
	b.judge(ctx, m, ep, r, f.why != refreshByOperator)
	now := time.Now()
	if r.class == rejectedClient {
		f.land(nil, &Error{ErrClient, c.slot, rejectedText, clientProbe})
		return
	}
	c.mu.Lock()
	c.failure = nextFailure(c.failure, r, now)
	wait := c.failure.RetryAt.Sub(now)
	c.mu.Unlock()
	err := &Error{ErrProvider, c.slot, r.text, wait}
	b.logFailure(c, &tokenstore.Record{}, err)
	f.land(nil, err)
}

// failed returns the error that the record tells of.
func (b *Broker) failed(m *managed, c *conn, f *flight, snap *snapshot) error {
	if err := b.hopeless(m, c, snap, f.why); err != nil {
		return err
	}
	if f := snap.record().Failure; f != nil {
		return &Error{ErrProvider, c.slot, f.Text, max(time.Until(f.RetryAt), time.Second)}
	}
	return &Error{Reason: ErrPending, Slot: c.slot, RetryAfter: pendingHint}
}

func attempts(f *tokenstore.Failure) int {
	if f == nil {
		return 0
	}
	return f.Attempts
}

func nextFailure(last *tokenstore.Failure, r reply, now time.Time) *tokenstore.Failure {
	n := attempts(last) + 1
	next := &tokenstore.Failure{Code: r.code, Text: r.text, At: now, Attempts: n, RetryAt: retryAt(now, n)}
	if r.retryAfter > 0 {
		next.RetryAt, next.Mandated = now.Add(r.retryAfter), true
	}
	return next
}

// renewed returns rec with the token that its refresh token was redeemed for.
func renewed(in *Integration, c *conn, rec *tokenstore.Record, r reply, f *flight) *tokenstore.Record {
	next := *rec
	next.Generation++
	next.Write = rand.Text()
	next.Fence, next.Suspect = f.fence, false
	next.Failure, next.Intent = nil, nil
	setToken(in, &next, r)
	if used := time.Unix(c.used.Load(), 0); used.After(next.Used) {
		next.Used = used
	}
	if f.why == refreshRejected {
		next.Forced = next.Refreshed
	}
	next.Due = due(in, c.slot, &next, next.Refreshed)
	return &next
}

// setToken puts a granted token into the record. A refresh token that the answer leaves out stays (RFC 6749 section 6), as
// do the scopes (section 5.1).
func setToken(in *Integration, rec *tokenstore.Record, r reply) {
	refresh := rec.Token.Refresh
	rec.Token = r.token
	if rec.Token.Refresh == "" {
		rec.Token.Refresh = refresh
	}
	// Wall clock only: a monotonic reading would stand still while the machine is suspended.
	rec.Refreshed = r.received.Round(0)
	rec.Token.Expiry = r.token.Expiry.Round(0)
	if r.token.Expiry.IsZero() {
		rec.Token.Expiry = rec.Refreshed.Add(in.Lifetime)
	}
	if r.scopes != nil {
		rec.Scopes = r.scopes
	}
	if r.extra != nil {
		rec.Extra = r.extra
	}
}

// judge tells the breakers what a failure says of the endpoint and of our client there. An attempt by an operator is not
// counted against the endpoint.
func (b *Broker) judge(ctx context.Context, m *managed, ep Endpoints, r reply, counted bool) {
	now := time.Now()
	if counted {
		b.breakers.note(ep.TokenURL, finding{r.endpointFailed(), r.status == 0, r.retryAfter, r.began}, now)
	} else if r.status != 0 {
		b.breakers.answered(ep.TokenURL)
	}
	if r.class == dead {
		b.accepted(ctx, m, ep) // the grant is not, but who asked was known
	}
	if r.class != rejectedClient {
		return
	}
	b.log.Error("the provider refuses our client; no connection changes, check the client id and secret",
		"integration", m.Name, "code", r.code)
	b.rejected(ctx, m, ep, now.Add(clientProbe))
}

// endpointFailed tells whether the answer says that the endpoint itself is in trouble, not just this connection.
func (r reply) endpointFailed() bool {
	return (r.class == transient || r.class == ambiguous) && (r.status < 400 || r.status >= 500 || r.status == 429)
}

// fingerprint identifies the client that a grant was made with, so that its refresh token is never sent elsewhere.
func fingerprint(in *Integration, ep Endpoints) string { return digest(in.ClientID, ep.TokenURL) }

// digest hashes parts so that no two lists of parts run into each other.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256([]byte(p))
		h.Write(sum[:])
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// logFailure logs the transition from health to failure, once.
func (b *Broker) logFailure(c *conn, before *tokenstore.Record, err error) {
	level := b.log.Warn
	if errors.Is(err, ErrReconnect) {
		level = b.log.Error
	} else if before.Failure != nil || errors.Is(err, ErrClient) {
		return // judge has said so
	}
	level("a refresh failed", "integration", c.slot.Integration, "org", string(c.slot.Org), "error", err)
}
