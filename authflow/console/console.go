// Package console is the Integrations screen and the JSON API over a Broker.
//
// Both do the same few things: show every connection, connect, refresh and disconnect. The screen is for people with a
// browser and works without JavaScript (screen.go, actions.go, session.go); the API is for programs that hold an operator's
// token (api.go). Neither ever shows a token, a code, a secret or anything a provider wrote.
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Broker is what the screen and the API call of an [authflow.Broker].
type Broker interface {
	Catalogue
	Actions
	Links
	Candidates
}

// Catalogue tells what there is.
type Catalogue interface {
	Integrations() []*authflow.Integration
	Integration(name string) (*authflow.Integration, bool)
	Connection(ctx context.Context, slot tokenstore.Slot) (authflow.Connection, error)
	Connections(ctx context.Context, integration string) ([]authflow.Connection, error)
}

// Actions change one connection.
type Actions interface {
	ConnectLink(ctx context.Context, slot tokenstore.Slot, by string, life time.Duration) (authflow.Link, error)
	Refresh(ctx context.Context, slot tokenstore.Slot) (authflow.Connection, error)
	Disconnect(ctx context.Context, slot tokenstore.Slot, by string) error
	Import(ctx context.Context, slot tokenstore.Slot, refreshToken, by string) (authflow.Connection, error)
}

// Links are the connect links of one connection.
type Links interface {
	ConnectHere(ctx context.Context, slot tokenstore.Slot, by string) (authflow.Link, error)
	ConnectLinks(ctx context.Context, slot tokenstore.Slot) ([]authflow.OpenLink, error)
	RevokeLink(ctx context.Context, slot tokenstore.Slot, id string) error
	RevokeLinks(ctx context.Context, slot tokenstore.Slot) (int, error)
}

// Candidates are consents by another account than the connection's, which wait for an operator's word.
type Candidates interface {
	Confirm(ctx context.Context, slot tokenstore.Slot, id, by string) (authflow.Connection, error)
	Reject(ctx context.Context, slot tokenstore.Slot, id, by string) error
}

var _ Broker = (*authflow.Broker)(nil)

// Config is what the screen and the API need.
type Config struct {
	Broker    Broker
	Sessions  tokenstore.Shelf // where sign-ins are kept; not used in open mode
	PublicURL string           // the auth listener as browsers see it, without a trailing slash; its path prefixes every link
	Operators []Operator       // without these and OIDC: open mode, behind the Host and Sec-Fetch-Site gate
	OIDC      *OIDC            // nil: nobody signs in at a provider
	Upkeep    Upkeep           // of the store
	Audit     Audit            // what is done here
	Log       *slog.Logger     // nil: discards
}

// Operator may use the screen and the API.
type Operator struct {
	Name   string
	Token  func() string // asked at every use, so that a renewed secret counts at once; an empty token matches nothing
	Rights Rights        // the zero Rights: all
}

// console is the handler. It is immutable but for the throttles and what is known of the provider.
type console struct {
	catalogue Catalogue // of all integrations: handlers use that of their visit
	broker    Actions
	links     Links
	waiting   Candidates
	sessions  tokenstore.Shelf
	operators []Operator
	oidc      *openID // nil: nobody signs in at a provider
	log       *slog.Logger
	rekey     func(context.Context) (tokenstore.Rekeyed, error) // or nil
	backup    func() (*tokenstore.Backup, error)                // or nil
	audit     Audit

	public *url.URL // Config.PublicURL
	cross  *http.CrossOriginProtection
	wrong  throttle // of wrong tokens
	starts throttle // of sign-ins at the provider
}

// New returns the handler of everything on the auth listener besides /oauth/: /integrations and /api/v1/, a redirect from / to
// the screen, and a 404 for any other path. Requests must arrive without the path prefix of PublicURL.
func New(cfg Config) (http.Handler, error) {
	if cfg.Broker == nil {
		return nil, errors.New("console: no broker")
	}
	public, err := url.Parse(cfg.PublicURL)
	if err != nil || public.Scheme == "" || public.Host == "" {
		return nil, errors.New("console: the public URL must be absolute")
	}
	if (len(cfg.Operators) > 0 || cfg.OIDC != nil) && cfg.Sessions == nil {
		return nil, errors.New("console: operators need a shelf for their sessions")
	}
	names := map[string]bool{}
	for _, op := range cfg.Operators {
		if op.Name == "" || op.Token == nil || names[op.Name] {
			return nil, fmt.Errorf("console: operator %q needs a name of its own and a token", op.Name)
		}
		names[op.Name] = true
	}
	c := &console{
		catalogue: cfg.Broker, broker: cfg.Broker, links: cfg.Broker, waiting: cfg.Broker, sessions: cfg.Sessions, operators: cfg.Operators, log: cfg.Log,
		rekey: cfg.Upkeep.Rekey, backup: cfg.Upkeep.Backup, audit: cfg.Audit, public: public, cross: http.NewCrossOriginProtection(),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.OIDC != nil {
		if c.oidc, err = newOpenID(*cfg.OIDC, c.log); err != nil {
			return nil, err
		}
	}
	if err := c.cross.AddTrustedOrigin(c.origin()); err != nil {
		return nil, fmt.Errorf("console: public URL: %w", err)
	}
	return c.routes(), nil
}

// routes is the whole surface. The screen's own paths need no second level below an integration's name but these,
// so that no name can collide with one. A path below an integration names it {name}: that is what admit looks at.
func (c *console) routes() http.Handler {
	mux := &surface{console: c}
	mux.HandleFunc("/{$}", c.root)
	mux.Handle("/integrations", c.page(visits{http.MethodGet: c.showScreen}))
	mux.HandleFunc("GET /integrations/copy.js", c.script)
	mux.Handle("/integrations/sign-in", c.gated(handlers{http.MethodPost: c.signIn}))
	mux.Handle("/integrations/sign-in/sso", c.gated(handlers{http.MethodPost: c.startSSO}))
	mux.Handle("/integrations/sign-in/callback", c.gated(handlers{http.MethodGet: c.finishSSO}))
	mux.Handle("/integrations/sign-out", c.page(visits{http.MethodPost: c.signOut}, seeing))
	mux.Handle("/integrations/{name}/connect", c.page(visits{http.MethodPost: c.connect}))
	mux.Handle("/integrations/{name}/refresh", c.page(visits{http.MethodPost: c.refresh}))
	mux.Handle("/integrations/{name}/history", c.page(visits{http.MethodGet: c.showHistory}))
	mux.Handle("/integrations/{name}/disconnect", c.page(visits{http.MethodGet: c.confirmDisconnect, http.MethodPost: c.disconnect}, changing))
	mux.Handle("/integrations/{name}/links", c.page(visits{http.MethodGet: c.showLinks, http.MethodPost: c.makeLink}))
	mux.Handle("/integrations/{name}/revoke", c.page(visits{http.MethodPost: c.revoke}))
	mux.Handle("/integrations/{name}/confirm", c.page(visits{http.MethodPost: c.confirm}))
	mux.Handle("/integrations/{name}/reject", c.page(visits{http.MethodPost: c.reject}))
	mux.HandleFunc("/", c.notFound)

	const connection = "/api/v1/integrations/{name}/connections/{org}"
	mux.Handle("/api/v1/integrations", c.api(calls{http.MethodGet: c.listIntegrations}))
	mux.Handle("/api/v1/integrations/{name}", c.api(calls{http.MethodGet: c.getIntegration}))
	mux.Handle(connection, c.api(calls{http.MethodGet: c.getConnection, http.MethodDelete: c.deleteConnection}))
	mux.Handle(connection+"/connect-link", c.api(calls{http.MethodPost: c.postConnectLink}))
	mux.Handle(connection+"/history", c.api(calls{http.MethodGet: c.getHistory}))
	mux.Handle(connection+"/connect-links", c.api(calls{http.MethodGet: c.listConnectLinks, http.MethodDelete: c.deleteConnectLinks}))
	mux.Handle(connection+"/connect-links/{id}", c.api(calls{http.MethodDelete: c.deleteConnectLink}))
	mux.Handle(connection+"/confirm", c.api(calls{http.MethodPost: c.postConfirm}))
	mux.Handle(connection+"/reject", c.api(calls{http.MethodPost: c.postReject}))
	mux.Handle(connection+"/refresh", c.api(calls{http.MethodPost: c.postRefresh}))
	mux.Handle(connection+"/grant", c.api(calls{http.MethodPut: c.putGrant}))
	mux.Handle("/api/v1/rekey", unhurried(c.api(calls{http.MethodPost: c.postRekey}, everything)))
	mux.Handle("/api/v1/backup", unhurried(c.api(calls{http.MethodGet: c.getBackup}, everything)))
	mux.HandleFunc("/api/", c.apiNotFound)
	return mux
}

// surface is a ServeMux that knows its patterns, so that a test can know them all.
type surface struct {
	console  *console
	mux      http.ServeMux
	patterns []string
}

// Handle adds a path.
func (s *surface) Handle(pattern string, h http.Handler) {
	s.patterns = append(s.patterns, pattern)
	s.mux.Handle(pattern, h)
}

// HandleFunc adds a path that anybody may visit.
func (s *surface) HandleFunc(pattern string, h http.HandlerFunc) { s.Handle(pattern, h) }

// ServeHTTP implements http.Handler.
func (s *surface) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r = withOrigin(r)
	switch {
	case r.URL.Path == path.Clean(r.URL.Path):
		s.mux.ServeHTTP(w, r)
	case strings.HasPrefix(r.URL.Path, "/api/"): // the mux would redirect, to where the prefix of PublicURL is missing
		s.console.apiNotFound(w, r)
	default:
		s.console.notFound(w, r)
	}
}

// origin returns the scheme and host of the public URL.
func (c *console) origin() string { return c.public.Scheme + "://" + c.public.Host }

// path returns a path of ours as browsers see it.
func (c *console) path(p string) string { return c.public.EscapedPath() + p }
