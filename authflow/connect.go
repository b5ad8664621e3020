package authflow

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"time"

	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// maxForm bounds the body of a connect form, which holds one ticket.
const maxForm = 32 << 10

// consents serves the pages through which a person connects. It keeps nothing in memory: any replica serves any step.
type consents struct {
	*Broker
	protection http.CrossOriginProtection
}

// Handler serves /oauth/connect/{integration} and /oauth/callback/{integration}, as received behind whatever strips the path
// of the public URL. It needs no sign-in: a ticket, and then the browser's cookie, say who may do what.
func (b *Broker) Handler() http.Handler {
	c := &consents{Broker: b}
	if u, err := url.Parse(b.cfg.PublicURL); err == nil {
		// Behind a front end that rewrites Host, our own pages' origin is not the request's. Only an origin without scheme or host
		// would be an error, and New refuses that.
		_ = c.protection.AddTrustedOrigin(u.Scheme + "://" + u.Host)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth/connect/{integration}", c.connect)
	mux.HandleFunc("/oauth/connect/{integration}/done", c.done)
	mux.HandleFunc("/oauth/callback/{integration}", c.callback)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { unknownPage.write(w) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Page{}.protect(w.Header()) // the mux's own answers too: none of this listener is ever stored
		if r.URL.Path != path.Clean(r.URL.Path) {
			// The mux would redirect, with code and state, to where the public path's prefix is missing.
			unknownPage.write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// connect shows what a ticket is about to connect (GET) and sends the browser to the provider (POST).
func (c *consents) connect(w http.ResponseWriter, r *http.Request) {
	in, ok := c.Integration(r.PathValue("integration"))
	if !ok {
		unknownIntegration.write(w)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		c.show(w, r, in)
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			badForm.write(w)
			return
		}
		if c.crossSite(r) {
			crossSite.write(w)
			return
		}
		c.start(w, r, in)
	default:
		methodNotAllowed(w, "GET, HEAD, POST")
	}
}

// crossSite tells whether another site made the browser send the form. Our pages send no Referer, for which browsers put
// "null" into Origin: where one does not say Sec-Fetch-Site, the ticket in the form shows that the form is ours.
func (c *consents) crossSite(r *http.Request) bool {
	if c.protection.Check(r) == nil {
		return false
	}
	ours := r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "null" && r.PostForm.Get("ticket") != ""
	return !ours
}

// show is the GET: it spends nothing, so that scanners and previews of a link do no harm.
func (c *consents) show(w http.ResponseWriter, r *http.Request, in *Integration) {
	id := r.URL.Query().Get("ticket")
	t, ep, p := c.admit(r.Context(), in, id)
	if p != nil {
		p.write(w)
		return
	}
	provider, err := url.Parse(ep.AuthorizationURL)
	if err != nil {
		unresolved(in, t.Slot.Org, errors.New("authorization_url is not a URL")).write(w)
		return
	}
	Page{
		Title: "Connect " + in.Name,
		Body: render("connect", map[string]any{
			"Integration": in,
			"Org":         t.Slot.Org,
			"Global":      t.Slot.Org == tokenstore.Global,
			"Entity":      ep.EntityID,
			"Provider":    provider.Host,
			"Link":        !t.Own,
			"By":          t.By,
			"Until":       atMinute(t.Expires),
			"Action":      c.path(connectPath(in.Name)),
			"Ticket":      id,
		}),
		// Chromium applies form-action to every redirect that follows a form, and providers pass the browser on to
		// further hosts (Slack to the workspace's, Salesforce to the company's): naming the first alone would stop it there.
		FormAction: []string{provider.Scheme + "://" + provider.Host, "https:"},
	}.Write(w, http.StatusOK)
}

// start is the POST: it remembers the consent and sends the browser to the provider.
func (c *consents) start(w http.ResponseWriter, r *http.Request, in *Integration) {
	id := r.Form.Get("ticket") // of the form, else of the URL
	t, ep, p := c.admit(r.Context(), in, id)
	if p != nil {
		p.write(w)
		return
	}
	state, browser := newSecret(), newSecret()
	going := consent{
		Slot:        t.Slot,
		By:          t.By,
		Ticket:      id,
		Own:         t.Own,
		Browser:     hashOf(browser),
		RedirectURI: RedirectURI(c.cfg.PublicURL, in.Name),
		Client:      fingerprint(in, ep),
	}
	if !in.PKCEOff {
		going.Verifier = oauth2.GenerateVerifier()
	}
	if slices.Contains(in.Scopes, "openid") {
		going.Nonce = newSecret()
	}
	location, err := going.authorizationURL(in, ep, state)
	if err != nil {
		unresolved(in, t.Slot.Org, err).write(w)
		return
	}
	if p := c.begin(r.Context(), state, going); p != nil {
		p.write(w)
		return
	}
	c.makeRoom(w, r)
	http.SetCookie(w, c.cookie(state, browser, int(consentLife/time.Second)))
	SeeOther(w, location)
}

// admit looks at a ticket without spending it, and at whether its connection can be made by consent at all.
func (c *consents) admit(ctx context.Context, in *Integration, id string) (ticket, Endpoints, *problem) {
	t, err := peek[ticket](ctx, c.cfg.Store, ticketID(id))
	switch {
	case errors.Is(err, tokenstore.ErrNotFound):
		return ticket{}, Endpoints{}, &badTicket
	case err != nil:
		return ticket{}, Endpoints{}, &storeDown
	case t.Slot.Integration != in.Name || !time.Now().Before(t.Expires):
		return ticket{}, Endpoints{}, &badTicket
	}
	switch revoked, err := c.revoked(ctx, t); {
	case err != nil:
		return ticket{}, Endpoints{}, &storeDown
	case revoked:
		return ticket{}, Endpoints{}, &badTicket
	case in.Flow == ClientCredentials:
		return ticket{}, Endpoints{}, &noConsent
	}
	ep, err := in.Resolve(t.Slot.Org)
	if err != nil {
		return ticket{}, Endpoints{}, unresolved(in, t.Slot.Org, err)
	}
	return t, ep, nil
}

// path is the path that a browser sees for one of ours.
func (c *consents) path(ours string) string {
	public, err := url.Parse(c.cfg.PublicURL)
	if err != nil {
		return ours // New has parsed it
	}
	return public.EscapedPath() + ours
}
