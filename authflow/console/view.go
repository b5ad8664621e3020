package console

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// view is what part of the screen is looked at. It travels in the query, and through the forms, so that an action leads back
// to where it was taken; nothing but these keys does, so it leads nowhere else.
type view struct {
	Integration string // this one alone; empty: all
	Query       string // orgs whose id contains it
	Attention   bool   // only connections that need attention
	Page        int    // from 1
}

func parseView(q url.Values) view {
	v := view{Integration: q.Get("integration"), Query: q.Get("q"), Attention: q.Get("show") == "attention", Page: 1}
	if n, err := strconv.Atoi(q.Get("page")); err == nil && n > 1 {
		v.Page = n
	}
	return v
}

// viewOf returns the view that a request asks for: of a form the one that its page had.
func viewOf(r *http.Request) view {
	if r.Method != http.MethodPost {
		return parseView(r.URL.Query())
	}
	return viewIn(r.PostFormValue("view"))
}

// viewIn returns the view that a query names, which is no address: it leads nowhere but to our screen.
func viewIn(query string) view {
	q, err := url.ParseQuery(query)
	if err != nil {
		q = nil
	}
	return parseView(q)
}

func (v view) values() url.Values {
	q := url.Values{}
	if v.Integration != "" {
		q.Set("integration", v.Integration)
	}
	if v.Query != "" {
		q.Set("q", v.Query)
	}
	if v.Attention {
		q.Set("show", "attention")
	}
	if v.Page > 1 {
		q.Set("page", strconv.Itoa(v.Page))
	}
	return q
}

// String returns the query.
func (v view) String() string { return v.values().Encode() }

// The setters return a changed copy, on its first page.

func (v view) of(integration string) view  { v.Integration, v.Page = integration, 1; return v }
func (v view) onPage(n int) view           { v.Page = n; return v }
func (v view) needing(attention bool) view { v.Attention, v.Page = attention, 1; return v }

// flash is what the last action did. It travels in the query as a word of a closed set and is not believed to be more than a
// notice: anybody can write such a link.
type flash struct {
	Done        string // a key of flashes, or a failure's code
	Integration string
	Org         tokenstore.Org
}

// flashes are the notices of what has been done.
var flashes = map[string]string{
	"refreshed":    "was refreshed.",
	"disconnected": "was disconnected.",
	"confirmed":    "is connected with the other account now.",
	"rejected":     "goes on with the account that it had.",
}

// notice returns the query's notice, or nil if there is none or it names nothing that the operator sees.
func (c *console) notice(q url.Values, v visit) *flash {
	f := flash{Done: q.Get("done"), Integration: q.Get("name")}
	org, err := parseOrg(q.Get("org"))
	_, did := flashes[f.Done]
	_, failed := titles[f.Done]
	if _, ok := v.sees.Integration(f.Integration); !ok || err != nil || !did && !failed {
		return nil
	}
	f.Org = org
	return &f
}

// OK says whether the action did what was asked.
func (f *flash) OK() bool { _, ok := flashes[f.Done]; return ok }

// Text returns what is said after the connection's name.
func (f *flash) Text() string {
	if text, ok := flashes[f.Done]; ok {
		return text
	}
	return "could not be refreshed: " + titles[f.Done] + "."
}

// screenURL returns the screen's address for a view, with a notice if f is not nil.
func (c *console) screenURL(v view, f *flash) string {
	q := v.values()
	if f != nil {
		q.Set("done", f.Done)
		q.Set("name", f.Integration)
		q.Set("org", string(f.Org))
	}
	if len(q) == 0 {
		return c.path("/integrations")
	}
	return c.path("/integrations") + "?" + q.Encode()
}
