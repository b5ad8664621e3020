package console

import (
	"net/http"
	"net/url"
	"regexp"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// linksPage shows the open connect links of one connection, and once the link that was just made.
type linksPage struct {
	Integration *authflow.Integration
	Slot        tokenstore.Slot
	Global      bool
	Made        *authflow.Link // nil: none was just made
	Until       *moment        // of Made
	Links       []linkRow
	Lives       []linkLife
	Changes     bool // the operator may do more than look
	Action      string
	RevokeURL   string
	Home        string // the view of the screen that he came from
	Form, View  string
}

type linkRow struct {
	authflow.OpenLink
	Made, Expires *moment
}

// linkLife is one of the lives that a link can be made with.
type linkLife struct {
	Value, Label string
	Usual        bool
}

var linkLives = []linkLife{
	{"1h", "one hour", false}, {authflow.LinkLife.String(), "one day", true}, {"168h", "seven days", false}, {authflow.MaxLinkLife.String(), "thirty days", false},
}

// linkID is what the public id of a link looks like.
var linkID = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)

// showLinks answers GET: what is open.
func (c *console) showLinks(w http.ResponseWriter, r *http.Request, v visit) {
	in, slot, err := c.slotOf(r, v, r.URL.Query().Get("org"))
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	c.writeLinks(w, r, v, in, slot, nil)
}

// makeLink makes a connect link for somebody else, and shows it this once: it is kept nowhere that it could be read from.
func (c *console) makeLink(w http.ResponseWriter, r *http.Request, v visit) {
	in, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	if flowOf(in) == authflow.ClientCredentials {
		c.writeScreen(w, r, v, http.StatusBadRequest, in.Name+" signs in with its own client credentials: there is nobody to consent.")
		return
	}
	var life time.Duration // the usual one
	if asked := r.PostForm.Get("life"); asked != "" {
		var err error
		if life, err = time.ParseDuration(asked); err != nil || life < time.Second || life > authflow.MaxLinkLife {
			c.showFailure(w, badRequest("A link lives for at least a second and at most %s.", authflow.MaxLinkLife))
			return
		}
	}
	link, err := c.broker.ConnectLink(r.Context(), slot, v.operator, life)
	v.link = link.ID
	c.logAction(r.Context(), "link_made", v, slot, err)
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	c.writeLinks(w, r, v, in, slot, &link)
}

func (c *console) writeLinks(w http.ResponseWriter, r *http.Request, v visit, in *authflow.Integration, slot tokenstore.Slot, made *authflow.Link) {
	now, look := time.Now(), viewOf(r)
	open, err := c.links.ConnectLinks(r.Context(), slot)
	if err != nil && made == nil { // a link that was just made is shown all the same: it never is again
		c.showFailure(w, failureOf(err))
		return
	}
	page := linksPage{
		Integration: in, Slot: slot, Global: slot.Org == tokenstore.Global, Made: made, Lives: linkLives, Changes: v.changes,
		Action: c.pathOf(in.Name, "links"), RevokeURL: c.pathOf(in.Name, "revoke"),
		Home: c.screenURL(look, nil), Form: v.form, View: look.String(),
	}
	if made != nil {
		page.Until = momentOf(made.ExpiresAt, now)
	}
	for _, link := range open {
		page.Links = append(page.Links, linkRow{link, momentOf(link.MadeAt, now), momentOf(link.ExpiresAt, now)})
	}
	authflow.Page{
		Title: "Connect links", Body: render("links", page), Nav: c.nav(v), Home: c.path("/integrations"),
		Script: c.path("/integrations/copy.js"),
	}.Write(w, http.StatusOK)
}

// revoke ends one link, or all of the connection where the form names none.
func (c *console) revoke(w http.ResponseWriter, r *http.Request, v visit) {
	in, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	var err error
	if id := r.PostForm.Get("link"); id != "" {
		err = c.revokeLink(r, v, slot, id)
	} else {
		err = c.revokeLinks(r, v, slot)
	}
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	ask := viewOf(r).values()
	ask.Set("org", string(slot.Org))
	authflow.SeeOther(w, c.linksURL(in, ask))
}

func (c *console) linksURL(in *authflow.Integration, ask url.Values) string {
	return c.pathOf(in.Name, "links") + "?" + ask.Encode()
}

func (c *console) revokeLink(r *http.Request, v visit, slot tokenstore.Slot, id string) error {
	err := error(&authflow.Error{Reason: authflow.ErrNoLink, Slot: slot})
	if linkID.MatchString(id) {
		v.link = id
		err = c.links.RevokeLink(r.Context(), slot, id)
	}
	c.logAction(r.Context(), "link_revoked", v, slot, err)
	return err
}

func (c *console) revokeLinks(r *http.Request, v visit, slot tokenstore.Slot) error {
	_, err := c.links.RevokeLinks(r.Context(), slot)
	c.logAction(r.Context(), "link_revoked", v, slot, err)
	return err
}

// confirm lets a consent by another account become the connection.
func (c *console) confirm(w http.ResponseWriter, r *http.Request, v visit) {
	_, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	_, err := c.waiting.Confirm(r.Context(), slot, r.PostForm.Get("consent"), v.operator)
	c.logAction(r.Context(), "account_confirmed", v, slot, err)
	c.decided(w, r, slot, "confirmed", err)
}

// reject discards one.
func (c *console) reject(w http.ResponseWriter, r *http.Request, v visit) {
	_, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	err := c.waiting.Reject(r.Context(), slot, r.PostForm.Get("consent"), v.operator)
	c.logAction(r.Context(), "account_rejected", v, slot, err)
	c.decided(w, r, slot, "rejected", err)
}

// decided leads back to the screen, which says what was done with a connection; or shows why it was not.
func (c *console) decided(w http.ResponseWriter, r *http.Request, slot tokenstore.Slot, done string, err error) {
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	authflow.SeeOther(w, c.screenURL(viewOf(r), &flash{Done: done, Integration: slot.Integration, Org: slot.Org}))
}
