package console

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// How many connections of an integration a page shows: a glance where there are several integrations, a page of one.
const (
	glance   = 20
	pageSize = 100
)

// screen is what the Integrations screen shows.
type screen struct {
	View    view
	Form    string // the form token
	Open    bool
	Changes bool // the operator may do more than look
	Notice  *flash
	Problem string // why the form just sent was not accepted
	Home    string // the whole screen's address, without any filter
	Total   counts
	Several bool // there are several integrations
	Cards   []card

	AttentionURL string // this view, with connections that need attention only
}

// counts summarises connections: Attention are those that do not work, or will stop working, without an operator's look, or for
// which a consent waits for his word.
type counts struct{ All, Active, Attention int }

func (n *counts) add(con authflow.Connection) {
	n.All++
	if con.Status == authflow.Active {
		n.Active++
	}
	if needsAttention(con) {
		n.Attention++
	}
}

func needsAttention(con authflow.Connection) bool {
	return con.Awaiting != nil || con.Status == authflow.Degraded || con.Status == authflow.Expiring || con.Status == authflow.NeedsReconnect
}

// card is one integration.
type card struct {
	*authflow.Integration
	Minted      bool // client_credentials: nobody consents
	RedirectURI string
	Count       counts
	Rows        []row
	Matching    int    // connections that the view's filter lets through
	Wanted      string // the org that the filter names, where it has no row
	NoGlobal    bool
	Failure     string // why its connections cannot be listed
	ConnectURL  string
	LinksURL    string // where connect links are made
	MoreURL     string // the whole list, where Rows is a glance at it
	Page, Pages int
	PrevURL     string
	NextURL     string
}

// showScreen answers GET /integrations.
func (c *console) showScreen(w http.ResponseWriter, r *http.Request, v visit) {
	c.writeScreen(w, r, v, http.StatusOK, "")
}

// writeScreen writes the screen, with problem over it if the form just sent was not accepted.
func (c *console) writeScreen(w http.ResponseWriter, r *http.Request, v visit, status int, problem string) {
	s := c.screen(r.Context(), viewOf(r), v)
	s.Problem = problem
	if r.Method != http.MethodPost {
		s.Notice = c.notice(r.URL.Query(), v)
	}
	for _, card := range s.Cards {
		if card.Failure != "" {
			status = max(status, http.StatusServiceUnavailable)
			w.Header().Set("Retry-After", "5")
		}
	}
	page := authflow.Page{
		Title: "Integrations", Body: render("screen", s), Home: s.Home, Wide: true,
		FormAction: []string{c.origin()}, // Connect leads to the public URL, which may not be the address in use
		Script:     c.path("/integrations/copy.js"),
	}
	page.Nav = c.nav(v)
	page.Write(w, status)
}

// nav is the right side of the header bar: who is signed in, in open mode nothing.
func (c *console) nav(v visit) template.HTML {
	if c.open() {
		return ""
	}
	return render("nav", struct {
		Operator, Action, Form string
		Changes                bool
	}{v.operator, c.path("/integrations/sign-out"), v.form, v.changes})
}

// screen gathers what a view shows, and lists no more than that.
func (c *console) screen(ctx context.Context, look view, v visit) screen {
	s := screen{View: look, Form: v.form, Open: c.open(), Changes: v.changes, Home: c.path("/integrations")}
	all := v.sees.Integrations()
	s.Several = len(all) > 1
	if in, ok := v.sees.Integration(look.Integration); ok {
		all = []*authflow.Integration{in}
	} else {
		s.View.Integration = ""
	}
	s.AttentionURL = c.screenURL(s.View.needing(true), nil)
	for _, in := range all {
		connections, err := v.sees.Connections(ctx, in.Name)
		card := c.card(in, connections, s.View, v, len(all) == 1)
		if err != nil {
			c.log.WarnContext(ctx, "connections cannot be listed", "integration", in.Name, "cause", err.Error())
			card.Failure = failureOf(err).detail
		}
		s.Total.All += card.Count.All
		s.Total.Active += card.Count.Active
		s.Total.Attention += card.Count.Attention
		if card.Matching > 0 || card.Failure != "" || !s.Filtered() || s.View.Integration != "" {
			s.Cards = append(s.Cards, card)
		}
	}
	return s
}

// card makes an integration's card: all of it where whole, else a glance.
func (c *console) card(in *authflow.Integration, connections []authflow.Connection, look view, v visit, whole bool) card {
	out := card{
		Integration: in, Minted: flowOf(in) == authflow.ClientCredentials,
		RedirectURI: authflow.RedirectURI(c.public.String(), in.Name),
		ConnectURL:  c.pathOf(in.Name, "connect"), LinksURL: c.pathOf(in.Name, "links"), NoGlobal: true, Page: 1, Pages: 1,
	}
	var shown []authflow.Connection
	covered := out.Minted || slices.ContainsFunc(connections, func(con authflow.Connection) bool {
		return con.Slot.Org == tokenstore.Global && con.Status != authflow.NotConnected
	})
	for _, con := range connections {
		global := con.Slot.Org == tokenstore.Global
		con.Fallback = con.Fallback && covered // there is something to fall back to
		if global && !in.Fallback && con.Status == authflow.NotConnected && con.PendingSince.IsZero() {
			continue // nothing uses it and nobody made it
		}
		out.NoGlobal = out.NoGlobal && !global
		out.Count.add(con)
		if look.lets(con) {
			shown = append(shown, con)
		}
	}
	out.Matching = len(shown)
	out.Wanted = first(shown, look)
	here := look // rows lead back to the page that they are on
	look = look.of(in.Name).onPage(look.Page)
	if whole {
		out.Pages = max(1, (len(shown)+pageSize-1)/pageSize)
		out.Page = min(look.Page, out.Pages)
		shown = shown[(out.Page-1)*pageSize : min(out.Page*pageSize, len(shown))]
		if out.Page > 1 {
			out.PrevURL = c.screenURL(look.onPage(out.Page-1), nil)
		}
		if out.Page < out.Pages {
			out.NextURL = c.screenURL(look.onPage(out.Page+1), nil)
		}
	} else if len(shown) > glance {
		out.MoreURL = c.screenURL(look.onPage(1), nil)
		shown = shown[:glance]
	}
	now := time.Now()
	for _, con := range shown {
		out.Rows = append(out.Rows, c.row(in, con, now, here, v))
	}
	return out
}

// first brings the org that the filter names whole to the front. Where a link leads to one that has no row, it returns its name.
func first(shown []authflow.Connection, look view) (wanted string) {
	i := slices.IndexFunc(shown, func(con authflow.Connection) bool { return string(con.Slot.Org) == look.Query })
	if i < 0 {
		if (look.Integration != "" || len(shown) == 0) && tokenstore.Org(look.Query).Valid() {
			wanted = look.Query
		}
		return wanted
	}
	named := shown[i]
	copy(shown[1:], shown[:i])
	shown[0] = named
	return ""
}

// lets says whether the view's filter lets a connection through.
func (v view) lets(con authflow.Connection) bool {
	return (!v.Attention || needsAttention(con)) &&
		strings.Contains(strings.ToLower(string(con.Slot.Org)), strings.ToLower(strings.TrimSpace(v.Query)))
}

// First and Last number the rows of the page, from 1.
func (c card) First() int { return (c.Page-1)*pageSize + min(1, len(c.Rows)) }
func (c card) Last() int  { return (c.Page-1)*pageSize + len(c.Rows) }

// Anchor is where the page can be scrolled to.
func (c card) Anchor() string { return "integration-" + c.Name }

// Filtered says whether something may be hidden.
func (s screen) Filtered() bool { return s.View.Query != "" || s.View.Attention }
