package console

import (
	"bytes"
	"embed"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/bifrost-proxy/bifrost/authflow"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed copy.js
var copyScript []byte

var templates = template.Must(template.ParseFS(templateFiles, "templates/*.html"))

// bodyLimit bounds what is read of any request's body.
const bodyLimit = 64 << 10

// pick returns the handler for the request's method, where GET answers HEAD too; if there is none it sets Allow (RFC 9110
// section 15.5.6).
func pick[H any](w http.ResponseWriter, r *http.Request, byMethod map[string]H) (H, bool) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	h, ok := byMethod[method]
	if !ok {
		w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(byMethod)), ", "))
	}
	return h, ok
}

// handlers are those of one path, by method.
type handlers map[string]http.HandlerFunc

// visits are the handlers of a path that needs a signed-in operator, or the open mode.
type visits map[string]func(http.ResponseWriter, *http.Request, visit)

// gated returns the handler of a page's path: behind the open mode's gate and closed to other sites' forms.
func (c *console) gated(m handlers) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		h, ok := pick(w, r, m)
		switch {
		case c.open() && !c.admits(r):
			c.showNotAdmitted(w, r)
		case !ok:
			c.showMessage(w, http.StatusMethodNotAllowed, message{Title: "Wrong method",
				Text: "This address does not answer such requests.", Home: c.path("/integrations")})
		case !c.sameOrigin(r):
			c.showMessage(w, http.StatusForbidden, message{Title: "Not from this page",
				Text: "This request came from another site, so nothing was done. Please use the buttons on the Integrations screen."})
		default:
			h(w, r)
		}
	})
}

// page is gated, with the sign-in form for whoever is not signed in, and a refusal for whoever lacks what the path asks for.
func (c *console) page(m visits, asks ...need) http.Handler {
	behind := handlers{}
	for method, h := range m {
		behind[method] = func(w http.ResponseWriter, r *http.Request) {
			v, ok := c.visitOf(w, r)
			if !ok {
				return
			}
			if err := c.admit(v, r, theNeed(asks)); err != nil {
				c.showFailure(w, failureOf(err))
				return
			}
			h(w, r, v)
		}
	}
	return c.gated(behind)
}

// visitOf returns who visits, or answers with the sign-in form.
func (c *console) visitOf(w http.ResponseWriter, r *http.Request) (visit, bool) {
	v, ok, err := c.signedIn(r)
	switch {
	case err != nil:
		c.showFailure(w, failureOf(err))
	case !ok:
		c.askToSignIn(w, r)
	default:
		v.form = c.giveForm(w, r)
	}
	return v, ok && err == nil
}

// askToSignIn shows the sign-in form: as the answer to a visit, or as a refusal of an action.
func (c *console) askToSignIn(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		c.showSignIn(w, r, http.StatusUnauthorized, "Your session has ended. Please sign in again; nothing was changed.")
		return
	}
	c.showSignIn(w, r, http.StatusOK, "")
}

// root leads to the only screen that there is.
func (c *console) root(w http.ResponseWriter, _ *http.Request) {
	authflow.SeeOther(w, c.path("/integrations"))
}

// script serves the copy buttons' script.
func (c *console) script(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(copyScript) // a browser that has gone is not our failure
}

// message is a page that says one thing.
type message struct {
	Title, Text string
	Home        string // link to the screen; empty: none
	Link        string // its text; empty: the usual one
}

func (c *console) showMessage(w http.ResponseWriter, status int, m message) {
	authflow.Page{Title: m.Title, Body: render("message", m), Home: c.path("/integrations")}.Write(w, status)
}

func (c *console) notFound(w http.ResponseWriter, _ *http.Request) {
	c.showMessage(w, http.StatusNotFound, message{Title: "Not found", Text: "There is nothing at this address.", Home: c.path("/integrations")})
}

// showNotAdmitted explains the open mode's gate. A visitor who followed a link from another site, under a host of ours, may
// go on by a link of ours; a page of another site cannot press it.
func (c *console) showNotAdmitted(w http.ResponseWriter, r *http.Request) {
	m := message{Title: "Not from here",
		Text: "No operators are configured, so this screen answers only on this machine's own address or on its public URL."}
	if c.isOurHost(r.Host) {
		m.Text = "No operators are configured, so this screen does not answer requests that come from other sites."
		m.Home = c.path("/integrations")
	}
	c.showMessage(w, http.StatusForbidden, m)
}

// showFailure shows why something could not be done.
func (c *console) showFailure(w http.ResponseWriter, f *failure) {
	f.retryHeader(w)
	c.showMessage(w, f.status, message{Title: f.title(), Text: f.detail, Home: c.path("/integrations")})
}

// signInForm is what the sign-in form shows.
type signInForm struct {
	Action, Form, View, Problem string
	Tokens, SSO                 bool   // which ways there are
	Reachable                   bool   // the provider answers
	Provider                    string // its host
	Again                       string // where the form is shown anew
}

func (c *console) showSignIn(w http.ResponseWriter, r *http.Request, status int, problem string) {
	sources := c.ssoSources(r.Context())
	form := signInForm{
		Action: c.path("/integrations/sign-in"), Form: c.giveForm(w, r), View: viewOf(r).String(), Problem: problem,
		Tokens: len(c.operators) > 0, SSO: c.oidc != nil, Reachable: sources != nil, Again: c.screenURL(viewOf(r), nil),
	}
	if form.SSO {
		form.Provider = c.oidc.host()
	}
	authflow.Page{Title: "Sign in", Body: render("signin", form), Home: c.path("/integrations"), FormAction: sources}.Write(w, status)
}

// render executes one of our templates into the body of a page.
func render(name string, data any) template.HTML {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, data); err != nil {
		panic(err) // the templates and their data's types are fixed: a bug, and a test renders every page
	}
	return template.HTML(out.String())
}
