package console

import (
	"fmt"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// row is one connection of a card.
type row struct {
	authflow.Connection
	Global        bool
	Label         string // the status in words
	Minted        bool   // client_credentials: nobody consents
	Changes       bool   // the operator may do more than look
	Shared        bool   // other organizations fall back to the global connection
	Expires       *moment
	Refreshed     *moment
	Next          *moment
	Connected     *moment
	Pending       *moment
	Failed        *moment // when the last error happened
	ConnectURL    string
	MakeLinkURL   string
	RefreshURL    string
	DisconnectURL string
	HistoryURL    string // empty: none is kept
	LinksURL      string // where its connect links are shown
	ConfirmURL    string
	RejectURL     string
	Waiting       *moment // since when a consent by another account waits
	Form, View    string  // hidden fields of its form
}

// labels are the statuses in words.
var labels = map[authflow.Status]string{
	authflow.NotConnected:   "Not connected",
	authflow.Active:         "Active",
	authflow.Degraded:       "Degraded",
	authflow.Expiring:       "Expiring",
	authflow.NeedsReconnect: "Needs reconnect",
}

// row makes the row of one of in's connections; look is the view that its buttons lead back to.
func (c *console) row(in *authflow.Integration, con authflow.Connection, now time.Time, look view, v visit) row {
	ask := look.values()
	ask.Set("org", string(con.Slot.Org))
	r := row{
		Connection: con, Global: con.Slot.Org == tokenstore.Global, Label: labels[con.Status],
		Minted: flowOf(in) == authflow.ClientCredentials, Changes: v.changes, Shared: in.Fallback,
		Expires: momentOf(con.ExpiresAt, now), Refreshed: momentOf(con.LastRefresh, now), Next: momentOf(con.NextRefresh, now),
		Connected: momentOf(con.ConnectedAt, now), Pending: momentOf(con.PendingSince, now),
		ConnectURL: c.pathOf(in.Name, "connect"), MakeLinkURL: c.pathOf(in.Name, "links"), RefreshURL: c.pathOf(in.Name, "refresh"),
		DisconnectURL: c.pathOf(in.Name, "disconnect") + "?" + ask.Encode(), Form: v.form, View: look.String(),
	}
	if c.audit.History != nil {
		r.HistoryURL = c.pathOf(in.Name, "history") + "?" + ask.Encode()
	}
	r.LinksURL, r.ConfirmURL, r.RejectURL = c.linksURL(in, ask), c.pathOf(in.Name, "confirm"), c.pathOf(in.Name, "reject")
	if con.Awaiting != nil {
		r.Waiting = momentOf(con.Awaiting.Since, now)
	}
	if con.LastError != nil {
		r.Failed = momentOf(con.LastError.Time, now)
	}
	return r
}

// Made says whether there is a grant, dead or alive.
func (r row) Made() bool { return r.Status != authflow.NotConnected }

// CanConnect says whether a consent makes sense here.
func (r row) CanConnect() bool { return !r.Minted }

// CanRefresh says whether a refresh can be tried.
func (r row) CanRefresh() bool {
	return r.Made() && r.Status != authflow.NeedsReconnect && (r.HasRefresh || r.Minted)
}

// Urgent says whether the consent is what this connection waits for.
func (r row) Urgent() bool { return r.Status == authflow.NeedsReconnect }

// Verb is the connect button's text.
func (r row) Verb() string {
	if r.Made() {
		return "Reconnect"
	}
	return "Connect"
}

// MissingScopes returns the requested scopes that were not granted, each once.
func (r row) MissingScopes() []string {
	return slices.Compact(slices.Sorted(slices.Values(r.ScopesMissing)))
}

// Who names the connection for people who cannot see which row a button is in.
func (r row) Who() string {
	if r.Global {
		return "the global connection"
	}
	return string(r.Slot.Org)
}

// moment is a point in time, for people in every time zone.
type moment struct {
	ISO      string // RFC 3339
	UTC      string
	Clock    string // the time of day, for what is minutes old at most
	Relative string // to now
	Past     bool
}

// momentOf returns nil for the absent time.
func momentOf(t, now time.Time) *moment {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	m := &moment{ISO: t.Format(time.RFC3339), UTC: t.Format("2 Jan 2006, 15:04:05") + " UTC", Clock: t.Format("15:04") + " UTC", Past: t.Before(now)}
	distance := roughly(now.Sub(t).Abs())
	switch {
	case distance == "":
		m.Relative = "now"
	case m.Past:
		m.Relative = distance + " ago"
	default:
		m.Relative = "in " + distance
	}
	return m
}

// roughly says how long d is, rounded to its largest unit; less than half a second is nothing.
func roughly(d time.Duration) string {
	d = d.Round(time.Second)
	const day = 24 * time.Hour
	units := []struct {
		length time.Duration
		until  time.Duration // in this unit up to here
		name   string
	}{
		{time.Second, 90 * time.Second, "second"},
		{time.Minute, 90 * time.Minute, "minute"},
		{time.Hour, 2 * day, "hour"},
		{day, 60 * day, "day"},
		{30 * day, 720 * day, "month"},
		{365 * day, 1<<63 - 1, "year"},
	}
	for _, u := range units {
		if d >= u.until {
			continue
		}
		n := int64((d + u.length/2) / u.length)
		switch n {
		case 0:
			return ""
		case 1:
			return "1 " + u.name
		}
		return fmt.Sprintf("%d %ss", n, u.name)
	}
	return ""
}
