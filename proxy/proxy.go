// Package proxy takes a caller's request to its upstream with the right credential.
//
// A [Proxy] reads a request top to bottom: the raw target is accepted or refused, never normalised (gate.go); its path or Host
// finds the route (route.go); a key or a certificate says who calls (caller.go); headers say for which org (org.go); rules say
// whether they may (rule.go); then httputil.ReverseProxy carries it, and one credential is set on the way out (credential.go).
// Whatever fails is answered from one table (failure.go), and every request ends in one log line and its metrics (event.go).
package proxy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
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

	// Callers may use the proxy, each within its rights, and so may whom a JWT of an issuer names. If there are neither, every request may use every org and the global
	// connection without a key; Open says on what condition.
	Callers []Caller
	JWT     []JWTIssuer
	KeySets *KeySets // of JWT; nil: its own. Shared by the Proxies that follow one another on a reload

	// Open says that there are no callers and that the listener's address is loopback: requests must then name a Host that is
	// loopback, PublicURL's or a route's, and must not come from a foreign web page (Sec-Fetch-Site: cross-site). Without
	// any of Callers, JWT and Open the network is trusted.
	Open bool

	// BodyIdle is how long a caller may keep a read of its request's body waiting, before the upstream begins to answer; default
	// a minute. WriteIdle is how long a stream of HTTP/2 may keep a write of its answer waiting; default ten minutes. Whoever
	// sends or takes a little at a time is not touched. HTTP/1 has no streams: its connections are the listener's to watch.
	// Negative: for ever.
	BodyIdle, WriteIdle time.Duration

	PublicURL   string                            // as callers see the proxy, without trailing slash; empty: the request's own
	ConnectURL  func(slot tokenstore.Slot) string // nil: failures carry no connect_url
	Log         *slog.Logger                      // nil: discards
	LogRequests bool                              // one line per request
	Metrics     *Metrics                          // nil: counts for nobody. Shared by the Proxies that follow one another on a reload
	Tunnels     *Tunnels                          // nil: its own. Shared likewise

	MaxConcurrent int    // requests under way in the whole process, whatever they ask for; beyond it they are answered 503. 0: unlimited
	Usage         *Usage // nil: nothing is used yet. Shared by the Proxies that follow one another on a reload
}

// Route is one integration as the proxy sees it. Integration, Target and one of Prefix and Hosts are required.
type Route struct {
	Integration string
	Prefix      string   // "/graph": compared with raw path bytes, on segment borders
	Hosts       []string // requests to these hosts go to the upstream with their whole path; with or without a port

	// Target returns the upstream and the extra headers of the connection whose token is sent. It is called at most once per
	// org with a credential; the answer is kept as long as the Proxy.
	Target func(org tokenstore.Org) (Target, error)

	// OwnTargets are the orgs whose Target may differ from the one of Global, which all others share.
	OwnTargets []tokenstore.Org

	OnlyOrgs []tokenstore.Org // nil: every org. The global connection is not an org
	Header   string           // the header that carries the credential; default Authorization
	Query    string           // a query parameter that carries it instead of a header; default none
	Methods  []string         // nil: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS. CONNECT and TRACE are refused in any case

	Allow []string // "METHOD /path/**", METHOD may be *; nil: everything
	Deny  []string // likewise, and stronger than Allow; nil: nothing

	// ExposeToken lets callers with MayReadTokens read the access token itself. Methods, Allow and Deny are for requests that go
	// through the proxy: they do not bind what such a caller does with it.
	ExposeToken bool

	WebSocket         bool
	WebSocketIdle     time.Duration // no byte in either direction; default 10 min
	WebSocketLifetime time.Duration // default 12 h
	MaxWebSockets     int           // open at a time, with the other Proxies of the same Tunnels; default 1000

	// RewriteLinks makes the JSON strings of an answer that begin with an absolute URL of the upstream lead back to the proxy,
	// and every header whose whole value is one; Location, Content-Location and Link always do. It is done while the body
	// passes, and only to bodies that are whole and not compressed: the upstream is asked for such with Accept-Encoding. The
	// caller must be able to reach PublicURL, or the Host that it named.
	RewriteLinks bool

	MaxBody               int64         // bytes; 0: unlimited
	ReplayBodyLimit       int64         // bytes of a body kept for a replay after a 401; 0: 64 KiB; negative: none
	DialTimeout           time.Duration // TCP and TLS; default 10 s
	ResponseHeaderTimeout time.Duration // default 60 s

	Limits  Limits
	RootCAs *x509.CertPool // trusted for this upstream; nil: the system's

	// AllowPrivate are the networks beside the public ones to which the name of an upstream may resolve. They are not needed for
	// an upstream that is written as a loopback or private address or as localhost, and nothing allows metadata services.
	AllowPrivate []netip.Prefix

	resolver *net.Resolver // of the upstream's name; nil: the system's
}

// Target is an upstream, resolved for one org.
type Target struct {
	BaseURL string // without trailing slash; may have a path, has no query
	Headers map[string]string
}

// Caller may use the proxy. It proves itself with a key, a certificate or a JWT, and needs one of them.
type Caller struct {
	Name string
	Key  func() string // a key that never ends, read once, by New; nil: none
	Keys []Key         // more of them, such as the old and the new while they are changed

	// SANs are the subject alternative names that stand for the caller in client certificates which the listener has verified:
	// URIs with their "://", or names after "dns:", "email:" or "ip:". They count where no key names a caller.
	SANs []string

	Subjects []Subject // whose JWTs are the caller's; each of an issuer in Config.JWT

	Orgs         []string // "*": every org, "@global": the right to ask for the global connection, or names
	Integrations []string // "*" or names
	Allow        []string // "METHOD /path/**"; empty: everything

	// MayReadTokens lets the caller read the access tokens of Routes with ExposeToken, for orgs and integrations that are its
	// own. It has no effect on a caller with Allow: a token would open every path.
	MayReadTokens bool
}

// Key is a caller's key. The key itself need not be known.
type Key struct {
	SHA256   [sha256.Size]byte
	NotAfter time.Time // later it proves nothing; zero: it never ends
}

// Proxy is the handler of the proxy listener. It is immutable: a reload makes a new one and Closes the old.
type Proxy struct {
	broker      Broker
	routes      []*route
	names       map[string]*route // by integration
	prefixes    prefixes
	hosts       hostTable
	callers     callers
	guarded     bool // only known callers get through
	open        bool
	publicURL   string
	publicHost  string
	connectURL  func(tokenstore.Slot) string
	log         *slog.Logger
	errorLog    *log.Logger // httputil's, at debug level
	logRequests bool
	metrics     *Metrics
	tunnels     *Tunnels
	bodyIdle    time.Duration // 0 or less: no limit
	writeIdle   time.Duration
	unrouted    *routeMetrics
	buffers     buffers
	exchanges   sync.Pool

	maxConcurrent int64
	usage         *Usage
}

// New returns a Proxy, or an error that says what is wrong with cfg.
func New(cfg Config) (*Proxy, error) {
	if cfg.Broker == nil {
		return nil, errors.New("proxy: a Broker is required")
	}
	p := &Proxy{
		broker:      cfg.Broker,
		names:       make(map[string]*route),
		hosts:       make(hostTable),
		callers:     callers{keys: make(keyring), names: newSANTable()},
		guarded:     len(cfg.Callers)+len(cfg.JWT) > 0,
		open:        cfg.Open,
		publicURL:   strings.TrimRight(cfg.PublicURL, "/"),
		connectURL:  cfg.ConnectURL,
		log:         cfg.Log,
		logRequests: cfg.LogRequests && cfg.Log != nil,
		metrics:     cfg.Metrics,
		bodyIdle:    cmp.Or(cfg.BodyIdle, defaultBodyIdle),
		writeIdle:   cmp.Or(cfg.WriteIdle, defaultWriteIdle),

		maxConcurrent: int64(cfg.MaxConcurrent),
		usage:         cfg.Usage,
	}
	if p.usage == nil {
		p.usage = &Usage{}
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.errorLog = slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)
	if p.metrics == nil {
		p.metrics = NewMetrics(nil)
	}
	if p.tunnels = cfg.Tunnels; p.tunnels == nil {
		p.tunnels = NewTunnels(nil)
	}
	p.unrouted = p.metrics.route("")
	p.exchanges.New = func() any { return newExchange(p) }
	if cfg.PublicURL != "" {
		u, err := url.Parse(p.publicURL)
		if err != nil || u.Host == "" || strings.ContainsAny(p.publicURL, `"\`) {
			return nil, errors.New("proxy: the public URL has no host, or a character that no URL has")
		}
		p.publicHost = u.Host
	}
	if err := p.addRoutes(cfg.Routes); err != nil {
		return nil, err
	}
	var err error
	if p.callers.jwt, err = newJWTCallers(cfg.JWT, cfg.KeySets, p.log); err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return p, p.addCallers(cfg.Callers)
}

func (p *Proxy) addRoutes(routes []Route) error {
	for _, one := range routes {
		rt, err := newRoute(one)
		if err != nil {
			return fmt.Errorf("proxy: integration %s: %w", one.Integration, err)
		}
		if p.names[rt.Integration] != nil {
			return fmt.Errorf("proxy: integration %s is there twice", rt.Integration)
		}
		p.names[rt.Integration] = rt
		rt.metrics = p.metrics.route(rt.Integration)
		rt.usage = p.usage.integration(rt.Integration)
		if one.Prefix != "" && !p.prefixes.add(rt) {
			return fmt.Errorf("proxy: integration %s: another one has the route %q", rt.Integration, rt.Prefix)
		}
		for _, host := range rt.Hosts {
			host = strings.ToLower(host)
			if p.hosts[host] != nil {
				return fmt.Errorf("proxy: integration %s: another one has the host %q", rt.Integration, host)
			}
			p.hosts[host] = rt
		}
		p.routes = append(p.routes, rt)
	}
	return nil
}

func (p *Proxy) addCallers(callers []Caller) error {
	for _, one := range callers {
		if err := p.callers.add(one); err != nil {
			return fmt.Errorf("proxy: caller %s: %w", one.Name, err)
		}
	}
	return nil
}

// Close closes the idle upstream connections. Requests in flight go on, and their connections are closed after them; it is
// called once no new ones will come.
func (p *Proxy) Close() error {
	for _, rt := range p.routes {
		rt.transport.CloseIdleConnections()
	}
	return nil
}

// ServeHTTP takes one request to its upstream, or answers why not.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := p.exchanges.Get().(*exchange)
	x.begin(w, r)
	defer x.end()
	if err := x.admit(); err != nil {
		x.hurryBody()
		x.answer(failureOf(r.Context(), err))
		return
	}
	if x.api {
		x.hurryBody()
		x.giveToken()
		return
	}
	x.forward()
	x.whole = true
}
