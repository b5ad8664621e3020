package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Rights are what an operator may do. The zero Rights are all of them.
type Rights struct {
	ReadOnly     bool     // sees, and changes nothing
	Integrations []string // the only ones there are for this operator; nil: all, empty: none
}

// visit is who asks for a page or calls the API. Handlers learn of integrations and connections from it alone, so that none
// can show what this operator may not see. The zero visit is nobody's and sees nothing.
type visit struct {
	operator string // for logs and records; anonymous in open mode
	form     string // the page's form token; empty for the API
	link     string // for logs: the public id of the connect link that this is about
	sees     Catalogue
	changes  bool // may change what it sees
	whole    bool // sees every integration there is, and will be
}

// anonymous is who acts in open mode, or without having signed in.
const anonymous = authflow.Anonymous

// visitBy returns the visit of an operator with these rights.
func (c *console) visitBy(operator string, rights Rights) visit {
	v := visit{operator: operator, sees: c.catalogue, changes: !rights.ReadOnly, whole: rights.Integrations == nil}
	if !v.whole {
		v.sees = part{c.catalogue, rights.Integrations}
	}
	return v
}

// need is what a path asks of its visitors. Every path has one: what its author does not say is byMethod.
type need int

const (
	byMethod   need = iota // seeing for GET, changing for every other method
	seeing                 // any operator
	changing               // not an operator that is ReadOnly
	everything             // changing, over all integrations: what concerns the store as a whole
)

// theNeed returns the one that is given, or byMethod.
func theNeed(asks []need) need {
	if len(asks) == 0 {
		return byMethod
	}
	return asks[0]
}

// allow says why a visit may not go on to a path's handler; nil: it may. A name that the operator does not see is like one that
// does not exist, whatever else he may not do.
func allow(v visit, r *http.Request, asks need) error {
	if name := r.PathValue("name"); name != "" {
		if _, ok := v.sees.Integration(name); !ok {
			return notFoundName()
		}
	}
	if asks == byMethod && r.Method != http.MethodGet && r.Method != http.MethodHead {
		asks = changing
	}
	switch {
	case asks >= changing && !v.changes:
		return forbidden(r, "Your role is viewer: you may see connections, and change none.")
	case asks == everything && !v.whole:
		return forbidden(r, "This concerns every integration, and you may use some of them only.")
	}
	return nil
}

func forbidden(r *http.Request, detail string) *failure {
	return &failure{status: http.StatusForbidden, code: "operator_forbidden", detail: detail,
		cause: fmt.Errorf("no right to %s %s", r.Method, r.Pattern)}
}

// admit is the one door to the handlers of operators: it lets a visit go on, or logs who was held up at what.
func (c *console) admit(v visit, r *http.Request, asks need) error {
	err := allow(v, r, asks)
	if err != nil && failureOf(err).status == http.StatusForbidden {
		c.logAction(r.Context(), "forbidden", v, slotNamed(r), err)
	}
	return err
}

// slotNamed returns what a request names of a connection, for the log. The name is that of an integration.
func slotNamed(r *http.Request) tokenstore.Slot {
	slot := tokenstore.Slot{Integration: r.PathValue("name")}
	for _, org := range []string{r.PathValue("org"), r.FormValue("org")} {
		if o, err := parseOrg(org); err == nil {
			slot.Org = o
			break
		}
	}
	return slot
}

// part is a catalogue of which an operator sees some integrations only.
type part struct {
	all  Catalogue
	only []string
}

func (p part) has(name string) bool { return slices.Contains(p.only, name) }

// Integrations implements Catalogue.
func (p part) Integrations() []*authflow.Integration {
	return slices.DeleteFunc(slices.Clone(p.all.Integrations()), func(in *authflow.Integration) bool { return !p.has(in.Name) })
}

// Integration implements Catalogue.
func (p part) Integration(name string) (*authflow.Integration, bool) {
	if !p.has(name) {
		return nil, false
	}
	return p.all.Integration(name)
}

// Connection implements Catalogue.
func (p part) Connection(ctx context.Context, slot tokenstore.Slot) (authflow.Connection, error) {
	if !p.has(slot.Integration) {
		return authflow.Connection{}, authflow.ErrUnknownIntegration
	}
	return p.all.Connection(ctx, slot)
}

// Connections implements Catalogue.
func (p part) Connections(ctx context.Context, integration string) ([]authflow.Connection, error) {
	if !p.has(integration) {
		return nil, authflow.ErrUnknownIntegration
	}
	return p.all.Connections(ctx, integration)
}
