// Package proxy takes a caller's request to its upstream with the right credential.
package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Broker provides credentials; *authflow.Broker is one.
type Broker interface {
	Token(ctx context.Context, slot tokenstore.Slot) (authflow.Credential, error)
	Replace(ctx context.Context, rejected authflow.Credential) (authflow.Credential, error)
}

// Config is what a Proxy needs.
type Config struct {
	Broker      Broker
	Routes      []Route
	Callers     []Caller                          // empty: open mode, every request may use every org, behind the Host and Sec-Fetch-Site gate
	Open        bool                              // no callers and a loopback address: contract section 1, last bullet
	PublicURL   string                            // without trailing slash; empty: scheme and Host of the request
	ConnectURL  func(slot tokenstore.Slot) string // nil: failures carry no connect_url
	Log         *slog.Logger
	LogRequests bool
	Metrics     prometheus.Registerer
}

// Route is one integration as the proxy sees it.
type Route struct {
	Integration string
	Prefix      string // "/graph": compared with raw path bytes, on segment borders
	Hosts       []string
	// Target returns the upstream base URL and the extra headers for the connection whose token is sent.
	Target                             func(org tokenstore.Org) (Target, error)
	OnlyOrgs                           []tokenstore.Org // nil: every org
	Header                             string           // the header that carries the credential; default Authorization
	Query                              string           // a query parameter that carries it instead; default none
	Methods                            []string
	Allow, Deny                        []string
	WebSocket                          bool
	RewriteLinks                       bool
	MaxBody, ReplayBodyLimit           int64
	DialTimeout, ResponseHeaderTimeout time.Duration
}

// Target is an upstream, resolved for one org.
type Target struct {
	BaseURL string // without trailing slash
	Headers map[string]string
}

// Caller may use the proxy.
type Caller struct {
	Name         string
	Key          func() string
	Orgs         []string // "*", "@global" or names
	Integrations []string // "*" or names
	Allow        []string // "METHOD /path/**"; empty: everything
}

// Proxy is the handler of the proxy listener.
type Proxy struct{}

// New returns a Proxy, or an error that says what is wrong with cfg.
func New(cfg Config) (*Proxy, error) { panic("skeleton") }

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("skeleton") }
