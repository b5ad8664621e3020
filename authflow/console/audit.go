package console

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Audit is where actions are told.
type Audit struct {
	// Record takes every action of an operator, and every sign-in that failed, before it is answered. Nil: nobody does.
	Record func(ctx context.Context, e authflow.Event)
	// History returns what was done with a connection, newest first. Nil: it is not kept, and asking for it is answered with 501.
	History func(ctx context.Context, slot tokenstore.Slot) ([]authflow.Event, error)
}

// logAction writes the one line of an action that changes state, or tried to, and tells it to the audit log. It is called
// before the answer is written.
func (c *console) logAction(ctx context.Context, action string, v visit, slot tokenstore.Slot, err error) {
	outcome := authflow.OK
	attrs := []any{"action", action, "operator", v.operator}
	if slot.Integration != "" {
		attrs = append(attrs, "integration", slot.Integration, "org", string(slot.Org))
	}
	if v.link != "" {
		attrs = append(attrs, "link", v.link)
	}
	if err == nil {
		c.log.InfoContext(ctx, "operator action", append(attrs, "outcome", outcome)...)
	} else {
		outcome = failureOf(err).code
		attrs = append(attrs, "outcome", outcome)
		if e, ok := errors.AsType[*failure](err); !ok || e.cause != nil {
			attrs = append(attrs, "cause", err.Error())
		}
		c.log.WarnContext(ctx, "operator action", attrs...)
	}
	if c.audit.Record == nil {
		return
	}
	from := originOf(ctx)
	e := authflow.Event{
		Action: authflow.Action(action), Actor: v.operator, Slot: slot, Link: v.link, Outcome: outcome, Request: from.request, Address: from.address,
	}
	if e.Action == authflow.ActionForbidden {
		e.Detail = err.Error() // which path: forbidden's own text
	}
	c.audit.Record(ctx, e)
}

// origin is which request this is, and whose.
type origin struct {
	request string // id
	address string // the client's
}

type originKey struct{}

// withOrigin notes the origin in the request's context.
func withOrigin(r *http.Request) *http.Request {
	from := origin{request: rand.Text(), address: authflow.ClientAddress(r.RemoteAddr)}
	return r.WithContext(context.WithValue(r.Context(), originKey{}, from))
}

// originOf returns what withOrigin has noted.
func originOf(ctx context.Context) origin {
	from, _ := ctx.Value(originKey{}).(origin)
	return from
}
