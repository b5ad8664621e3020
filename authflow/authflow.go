// Package authflow takes a connection from consent to an always-valid access token.
//
// A [Broker] owns the connections of every integration: it runs the consent (connect.go, callback.go), keeps the access
// tokens in use in memory and refreshes them (token.go, flight.go) so that each refresh token is POSTed at most once at a time
// by one goroutine of one replica, and tells the truth about each connection's state (status.go).
package authflow

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Errors of Token, Replace, Refresh and Import that callers decide on; each is the Reason of an [*Error].
var (
	ErrUnknownIntegration = errors.New("no such integration")
	ErrNotConnected       = errors.New("not connected")                            // never connected, and no fallback
	ErrReconnect          = errors.New("the grant is dead: reconnect")             // only a new consent helps
	ErrPending            = errors.New("a refresh is still running")               // the caller's wait ended; the refresh goes on
	ErrProvider           = errors.New("the identity provider is unavailable")     // and no token is still valid
	ErrClient             = errors.New("the identity provider refuses our client") // client id or secret; no connection changes
	ErrStore              = errors.New("the token store is unavailable")           // and nothing valid is in memory
	ErrUnreadable         = errors.New("the stored record cannot be read")         // left untouched
	ErrGrantRefused       = errors.New("the provider refused the imported grant")
	ErrUnresolved         = errors.New("a placeholder has no value for this org")
)

// Error is a failure to provide a credential. Its text contains no secret and no provider text.
type Error struct {
	Reason     error           // one of the package's sentinels
	Slot       tokenstore.Slot // the connection that failed, after fallback
	Detail     string          // one sentence for people; may be empty
	RetryAfter time.Duration   // when to try again; zero if unknown
}

// Error returns the reason, the connection and the detail.
func (e *Error) Error() string {
	s := "authflow: " + e.Slot.String() + ": " + e.Reason.Error()
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Unwrap returns the Reason.
func (e *Error) Unwrap() error { return e.Reason }

// Flow is how an integration obtains its first token.
type Flow string

// The flows.
const (
	AuthorizationCode Flow = "authorization_code" // RFC 6749 section 4.1
	ClientCredentials Flow = "client_credentials" // RFC 6749 section 4.4
)

// ClientAuth is how we authenticate at the token endpoint. It is never guessed.
type ClientAuth string

// The methods of client authentication (RFC 6749 section 2.3.1).
const (
	AuthPost  ClientAuth = "post"
	AuthBasic ClientAuth = "basic"
	AuthNone  ClientAuth = "none"
)

// RefreshClass is how a provider treats a used refresh token.
type RefreshClass string

// The classes. Reusable tokens may be POSTed again after an unknown outcome, rotating ones within Integration.RefreshGrace; a
// one-time token may not.
const (
	Reusable RefreshClass = "reusable"
	Rotating RefreshClass = "rotating"
	OneTime  RefreshClass = "one_time"
)

// Endpoints are an integration's templates, resolved for one org.
type Endpoints struct {
	EntityID            string
	AuthorizationURL    string
	TokenURL            string
	RevocationURL       string // empty: the provider offers none
	AuthorizationParams map[string]string
	TokenParams         map[string]string
}

// Integration is what a Broker knows of one OAuth application. It is immutable once passed in.
type Integration struct {
	Name        string
	Description string
	Flow        Flow // default AuthorizationCode

	ClientID     string
	ClientSecret func() string // nil with AuthNone
	ClientAuth   ClientAuth    // default AuthPost

	// Resolve returns the endpoints for an org (Global: the defaults), or an error that names the placeholder without value.
	Resolve func(org tokenstore.Org) (Endpoints, error)

	Scopes   []string
	Audience string // sent as `audience` in the authorization request and the client_credentials request; empty: not sent
	Issuer   string // compared with `iss` of the callback (RFC 9207); empty: not compared
	PKCEOff  bool   // default: S256

	Refresh      RefreshClass  // default Reusable
	IdleLifetime time.Duration // the provider forgets a refresh token unused for so long; default 0: unknown, kept alive every 30 days
	Lifetime     time.Duration // of an access token whose lifetime the provider does not say; default 1 h
	TokenTimeout time.Duration // of one POST to the token endpoint; default 15 s, 30 s for OneTime, 20 s for Rotating
	RefreshGrace time.Duration // Rotating: a used refresh token stays usable for so long; default 30 s; a refresh takes a third of it at most

	// AccessDies says that a refresh makes the previous access token invalid at once. Requests then wait for a refresh that is
	// under way or due, rather than use a token that is about to die; should it fail, the old one serves on.
	AccessDies bool

	Fallback bool                      // an org that never connected uses the global connection
	Own      func(tokenstore.Org) bool // client_credentials: whether the org has values of its own; nil: none has
	Orgs     []tokenstore.Org          // orgs that the configuration names, for the screen; nil: none

	// Format makes the header (or query) value of an access token; nil: "Bearer " + token. Where it is set, token types
	// other than bearer are accepted (RFC 6749 section 7.1).
	Format func(access string) string
}

// Config is what a Broker needs. All fields are required unless they say otherwise.
type Config struct {
	Store        tokenstore.Backend
	Alone        bool              // no other process and no other Broker writes to Store: memory need not be checked against it
	Integrations []*Integration    // may be replaced later: see Broker.SetIntegrations
	PublicURL    string            // the auth listener as browsers see it, without a trailing slash
	Transport    http.RoundTripper // to token and revocation endpoints; nil: a tuned http.Transport that uses no proxy
	Log          *slog.Logger      // nil: discards
	Metrics      prometheus.Registerer
	PerOrg       func(connections int) bool // whether to publish org-labelled series; nil: up to 1,000 connections

	// Audit takes every Event, before whoever acted is answered: it must not take long. Several may come at once. Nil: nobody does.
	Audit func(Event)
}

// RedirectURI returns the redirect URI to register at the provider, byte-identical in both legs (RFC 6749 section 4.1.3).
func RedirectURI(publicURL, integration string) string {
	return publicURL + "/oauth/callback/" + url.PathEscape(integration)
}
