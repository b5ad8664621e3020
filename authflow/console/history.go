package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// getHistory answers with a connection's events, each as in the audit log, newest first.
func (c *console) getHistory(r *http.Request, v visit) (any, error) {
	events, _, err := c.history(r, v, r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	return map[string]any{"events": events}, nil
}

// history returns what was done with the connection that a request names. The list is never nil.
func (c *console) history(r *http.Request, v visit, org string) ([]authflow.Event, tokenstore.Slot, error) {
	_, slot, err := c.slotOf(r, v, org)
	if err != nil {
		return nil, slot, err
	}
	if c.audit.History == nil {
		return nil, slot, unsupported("No history of connections is kept here.")
	}
	events, err := c.audit.History(r.Context(), slot)
	if events == nil {
		events = []authflow.Event{}
	}
	return events, slot, err
}

// past is an event as the page shows it.
type past struct {
	Time     *moment
	Who      string
	Link     string // public id of the link by which it came
	Address  string
	What     string
	OK       bool
	Outcome  string // a code
	Sentence string // what the code means, or more than it; may be empty
}

// showHistory shows what was done with a connection.
func (c *console) showHistory(w http.ResponseWriter, r *http.Request, v visit) {
	events, slot, err := c.history(r, v, r.URL.Query().Get("org"))
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	data := struct {
		Slot   tokenstore.Slot
		Global bool
		Events []past
		Back   string
	}{Slot: slot, Global: slot.Org == tokenstore.Global, Back: c.screenURL(viewOf(r), nil)}
	now := time.Now()
	for _, e := range events {
		data.Events = append(data.Events, pastOf(e, now))
	}
	authflow.Page{Title: "History", Body: render("history", data), Home: c.path("/integrations"), Wide: true}.Write(w, http.StatusOK)
}

func pastOf(e authflow.Event, now time.Time) past {
	p := past{
		Time: momentOf(e.Time, now), Who: e.Actor, Link: e.Link, Address: e.Address, What: deeds[e.Action],
		OK: e.Outcome == authflow.OK, Outcome: e.Outcome, Sentence: e.Detail,
	}
	switch {
	case e.Outcome == authflow.Unreadable && e.Action == "":
		p.What = "This entry cannot be read: it was damaged, or its encryption key is missing"
	case p.What == "":
		p.What = strings.ReplaceAll(string(e.Action), "_", " ") // of a newer version
	}
	if p.Sentence == "" && !p.OK {
		p.Sentence = titles[e.Outcome]
	}
	switch e.Actor {
	case authflow.Itself:
		p.Who = "bifrost itself"
	case authflow.Anonymous:
		p.Who = "somebody unknown"
	}
	return p
}

// deeds are the actions on a connection in words that fit every outcome: what was done, and what was tried in vain.
var deeds = map[authflow.Action]string{
	authflow.ActionConnect:          "Connect",
	authflow.ActionReconnect:        "Reconnect",
	authflow.ActionConsentDenied:    "Consent denied",
	authflow.ActionConnectFailed:    "Connect failed",
	authflow.ActionConnectRefused:   "Callback refused",
	authflow.ActionAccountPending:   "Another account waits for confirmation",
	authflow.ActionAccountConfirmed: "Confirm another account",
	authflow.ActionAccountRejected:  "Reject another account",
	authflow.ActionDisconnect:       "Disconnect",
	authflow.ActionImport:           "Import",
	authflow.ActionRefresh:          "Refresh",
	authflow.ActionLinkMade:         "Make a connect link",
	authflow.ActionLinkRevoked:      "Revoke connect links",
}
