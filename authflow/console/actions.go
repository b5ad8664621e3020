package console

import (
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// connect answers the Connect buttons: with a connect link for the operator's own browser.
func (c *console) connect(w http.ResponseWriter, r *http.Request, v visit) {
	in, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	if flowOf(in) == authflow.ClientCredentials {
		c.writeScreen(w, r, v, http.StatusBadRequest, in.Name+" signs in with its own client credentials: there is nobody to consent.")
		return
	}
	link, err := c.links.ConnectHere(r.Context(), slot, v.operator)
	v.link = link.ID
	c.logAction(r.Context(), "link_made", v, slot, err)
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	authflow.SeeOther(w, link.URL)
}

// refresh answers the Refresh buttons. A failure is a notice over the screen, which shows the connection's new state.
func (c *console) refresh(w http.ResponseWriter, r *http.Request, v visit) {
	_, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	notice := &flash{Done: "refreshed", Integration: slot.Integration, Org: slot.Org}
	_, err := c.broker.Refresh(r.Context(), slot)
	c.logAction(r.Context(), "refresh", v, slot, err)
	if err != nil {
		notice.Done = failureOf(err).code
	}
	authflow.SeeOther(w, c.screenURL(viewOf(r), notice))
}

// confirmDisconnect asks before disconnecting.
func (c *console) confirmDisconnect(w http.ResponseWriter, r *http.Request, v visit) {
	in, slot, err := c.slotOf(r, v, r.URL.Query().Get("org"))
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	con, err := v.sees.Connection(r.Context(), slot)
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	look := viewOf(r)
	data := struct {
		Row            row
		Action, Cancel string
	}{c.row(in, con, time.Now(), look, v), c.pathOf(in.Name, "disconnect"), c.screenURL(look, nil)}
	authflow.Page{Title: "Disconnect", Body: render("disconnect", data), Home: c.path("/integrations")}.Write(w, http.StatusOK)
}

// disconnect forgets a connection.
func (c *console) disconnect(w http.ResponseWriter, r *http.Request, v visit) {
	_, slot, ok := c.formSlot(w, r, v)
	if !ok {
		return
	}
	err := c.broker.Disconnect(r.Context(), slot, v.operator)
	c.logAction(r.Context(), "disconnect", v, slot, err)
	c.decided(w, r, slot, "disconnected", err)
}

// formSlot returns the connection that a form names, or answers why it names none. Only the body counts, not the query.
func (c *console) formSlot(w http.ResponseWriter, r *http.Request, v visit) (*authflow.Integration, tokenstore.Slot, bool) {
	_ = r.ParseForm() // what cannot be parsed names no org
	in, slot, err := c.slotOf(r, v, r.PostForm.Get("org"))
	if err == nil {
		return in, slot, true
	}
	f := failureOf(err)
	if f.code == "org_invalid" {
		c.writeScreen(w, r, v, f.status, f.detail)
	} else {
		c.showFailure(w, f)
	}
	return nil, tokenstore.Slot{}, false
}
