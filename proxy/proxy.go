// Package proxy takes a caller's request to its upstream with the right credential.
//
// A [Proxy] reads a request top to bottom: the raw target is accepted or refused, never normalised (gate.go); its path or Host
// finds the route (route.go); a key says who calls (caller.go); headers say for which org (org.go); rules say whether they may
// (rule.go); then httputil.ReverseProxy carries it, and one credential is set on the way out (credential.go). Whatever fails
// is answered from one table (failure.go), and every request ends in one log line and its metrics (event.go).
package proxy

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Broker provides credentials; *authflow.Broker is one. Errors match authflow's sentinels, or are ctx's.
type Broker interface {
	Token(ctx context.Context, slot tokenstore.Slot) (authflow.Credential, error)
	Replace(ctx context.Context, rejected authflow.Credential) (authflow.Credential, error)
}

// Config is what a Proxy needs. Broker is required.
type Config struct {
	Broker Broker
	Routes []Route

	// Callers may use the proxy, each within its rights. If there are none, every request may use every org and the global
	// connection without a key; Open says on what condition.
	Callers []Caller

	// Open says that there are no callers and that the listener's address is loopback: requests must then name a Host that is
	// loopback, PublicURL's or a route's, and must not come from a foreign web page (Sec-Fetch-Site: cross-site). Without
	// Callers and without Open the network is trusted.
	Open bool

	PublicURL   string                            // as callers see the proxy, without trailing slash; empty: the request's own
	ConnectURL  func(slot tokenstore.Slot) string // nil: failures carry no connect_url
	Log         *slog.Logger                      // nil: discards
	LogRequests bool                              // one line per request
	Metrics     *Metrics                          // nil: counts for nobody. Shared by the Proxies that follow one another on a reload
}

// Route is one integration as the proxy sees it. Integration, Target and one of Prefix and Hosts are required.
type Route struct {
	Integration string
	Prefix      string   // "/graph": compared with raw path bytes, on segment borders
	Hosts       []string // requests to these hosts go to the upstream with their whole path; with or without a port

	// Target returns the upstream and the extra headers of the connection whose token is sent. It is called at most once per
	// org with a credential; the answer is kept as long as the Proxy.
	Target func(org tokenstore.Org) (Target, error)

	OnlyOrgs []tokenstore.Org // nil: every org. The global connection is not an org
	Header   string           // the header that carries the credential; default Authorization
	Query    string           // a query parameter that carries it instead of a header; default none
	Methods  []string         // nil: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS. CONNECT and TRACE are refused in any case

	Allow []string // "METHOD /path/**", METHOD may be *; nil: everything
	Deny  []string // likewise, and stronger than Allow; nil: nothing

	WebSocket    bool
	RewriteLinks bool // absolute URLs of the upstream in JSON bodies too; not yet

	MaxBody               int64         // bytes; 0: unlimited
	ReplayBodyLimit       int64         // bytes of a body kept for a replay after a 401; 0: 64 KiB; negative: none
	DialTimeout           time.Duration // TCP and TLS; default 10 s
	ResponseHeaderTimeout time.Duration // default 60 s

	RootCAs *x509.CertPool // trusted for this upstream; nil: the system's
}

// Target is an upstream, resolved for one org.
type Target struct {
	BaseURL string // without trailing slash; may have a path, has no query
	Headers map[string]string
}

// Caller may use the proxy with its key.
type Caller struct {
	Name         string
	Key          func() string // read once, by New
	Orgs         []string      // "*": every org, "@global": the right to ask for the global connection, or names
	Integrations []string      // "*" or names
	Allow        []string      // "METHOD /path/**"; empty: everything
}

// Proxy is the handler of the proxy listener. It is immutable: a reload makes a new one and Closes the old.
type Proxy struct{}

// New returns a Proxy, or an error that says what is wrong with cfg.
func New(cfg Config) (*Proxy, error) { panic("skeleton") }

// Close closes the idle upstream connections. Requests in flight go on; it is called once no new ones will come.
func (p *Proxy) Close() error { panic("skeleton") }

// ServeHTTP takes one request to its upstream, or answers why not.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("skeleton") }
