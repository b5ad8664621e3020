package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// reserved is the path under which no route may live.
const reserved = "/_bifrost"

var defaultMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// route is a Route made ready: nothing of it is computed per request.
type route struct {
	Route
	allow, deny []rule
	onlyOrgs    map[tokenstore.Org]bool
	transport   *http.Transport
	metrics     *routeMetrics
	limits      *limits
	usage       *usage
	targets     map[tokenstore.Org]*atomic.Pointer[target] // of Global and the orgs with one of their own; made on first use
}

// target is a Target made ready.
type target struct {
	scheme, host string // host with the port as configured
	own          ownURL // what its absolute URLs begin with
	base         string // escaped path without trailing slash; may be empty
	headers      []headerField
	injected     map[string]bool // folded names of every header that we set: the caller's own are dropped
	usual        map[string]bool // the names of usual that are not among them
}

// headerField is a header with a value ready to be shared by every request.
type headerField struct {
	name   string // canonical
	values []string
}

func newRoute(cfg Route) (*route, error) {
	if cfg.Integration == "" || cfg.Target == nil {
		return nil, errors.New("a route needs an Integration and a Target")
	}
	if cfg.Prefix == "" && len(cfg.Hosts) == 0 {
		return nil, errors.New("a route needs a Prefix or Hosts")
	}
	if cfg.Prefix != "" {
		cfg.Prefix = strings.TrimRight(cfg.Prefix, "/")
		if !plainPath(cfg.Prefix + "/") {
			return nil, fmt.Errorf("route %q is no plain path", cfg.Prefix)
		}
		if cfg.Prefix == reserved || strings.HasPrefix(cfg.Prefix, reserved+"/") {
			return nil, fmt.Errorf("route %q is reserved", cfg.Prefix)
		}
		if cfg.RewriteLinks && strings.Contains(cfg.Prefix, `"`) {
			return nil, fmt.Errorf("route %q cannot stand in a JSON string", cfg.Prefix)
		}
	}
	if cfg.Header == "" {
		cfg.Header = "Authorization"
	}
	cfg.Header = http.CanonicalHeaderKey(cfg.Header)
	if cfg.Methods == nil {
		cfg.Methods = defaultMethods
	}
	if cfg.ReplayBodyLimit == 0 {
		cfg.ReplayBodyLimit = 64 << 10
	}
	cfg.WebSocketIdle = cmp.Or(cfg.WebSocketIdle, defaultIdle)
	cfg.WebSocketLifetime = cmp.Or(cfg.WebSocketLifetime, defaultLife)
	cfg.MaxWebSockets = cmp.Or(cfg.MaxWebSockets, defaultTunnels)
	rt := &route{Route: cfg, transport: newTransport(cfg), onlyOrgs: setOf(cfg.OnlyOrgs), targets: newTargets(cfg.OwnTargets)}
	var err error
	if rt.allow, err = parseRules(cfg.Allow); err != nil {
		return nil, err
	}
	if rt.deny, err = parseRules(cfg.Deny); err != nil {
		return nil, err
	}
	rt.limits, err = newLimits(cfg.Limits)
	return rt, err
}

func newTargets(own []tokenstore.Org) map[tokenstore.Org]*atomic.Pointer[target] {
	targets := map[tokenstore.Org]*atomic.Pointer[target]{tokenstore.Global: new(atomic.Pointer[target])}
	for _, org := range own {
		targets[org] = new(atomic.Pointer[target])
	}
	return targets
}

// setOf returns nil for nil: no list is another thing than an empty one.
func setOf(orgs []tokenstore.Org) map[tokenstore.Org]bool {
	if orgs == nil {
		return nil
	}
	set := make(map[tokenstore.Org]bool, len(orgs))
	for _, org := range orgs {
		set[org] = true
	}
	return set
}

// serves reports whether the integration may be used for the org.
func (rt *route) serves(org tokenstore.Org) bool {
	return org == tokenstore.Global || rt.onlyOrgs == nil || rt.onlyOrgs[org]
}

// allows reports whether the integration may be used with this method and raw path after the route.
func (rt *route) allows(method, rest string) bool {
	if len(rt.deny) > 0 && deniedBy(rt.deny, method, rest) {
		return false
	}
	return len(rt.allow) == 0 || allowedBy(rt.allow, method, rest)
}

// targetOf returns the upstream of the connection whose token is sent.
func (rt *route) targetOf(org tokenstore.Org) (*target, error) {
	kept := rt.targets[org]
	if kept == nil {
		org, kept = tokenstore.Global, rt.targets[tokenstore.Global]
	}
	if known := kept.Load(); known != nil {
		return known, nil
	}
	cfg, err := rt.Target(org)
	if err != nil {
		return nil, err
	}
	fresh, err := newTarget(cfg, rt.Header)
	if err != nil {
		return nil, err
	}
	kept.Store(fresh) // or another request's, which is the same
	return fresh, nil
}

// leadsWhere reports whether a connection's upstream is the one that it is by another route.
func (rt *route) leadsWhere(other *route, org tokenstore.Org) bool {
	here, err := rt.targetOf(org)
	if err != nil {
		return false
	}
	there, err := other.targetOf(org)
	return err == nil && here.scheme == there.scheme && here.host == there.host && here.base == there.base
}

func newTarget(cfg Target, credentialHeader string) (*target, error) {
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, errors.New("the upstream is no http or https URL") // the URL itself may hold an org's values
	}
	base := strings.TrimRight(u.EscapedPath(), "/")
	t := &target{
		scheme:   u.Scheme,
		host:     u.Host,
		own:      newOwnURL(u, base),
		base:     base,
		injected: map[string]bool{foldName(credentialHeader): true},
		usual:    make(map[string]bool),
	}
	for name, value := range cfg.Headers {
		t.headers = append(t.headers, headerField{http.CanonicalHeaderKey(name), []string{value}})
		t.injected[foldName(name)] = true
	}
	for _, name := range usual {
		if !t.injected[foldName(name)] {
			t.usual[name] = true
		}
	}
	return t, nil
}

// prefixes finds the route of a raw path.
type prefixes struct {
	routes  map[string]*route
	longest int
}

func (ps *prefixes) add(rt *route) bool {
	if _, taken := ps.routes[rt.Prefix]; taken {
		return false
	}
	if ps.routes == nil {
		ps.routes = make(map[string]*route)
	}
	ps.routes[rt.Prefix] = rt
	ps.longest = max(ps.longest, len(rt.Prefix))
	return true
}

// match returns the route with the longest prefix of path that ends on a segment border, or nil. Bytes are compared as they
// came: an encoded slash is no border.
func (ps *prefixes) match(path string) *route {
	found := ps.routes[""]
	for i := 1; i <= len(path) && i <= ps.longest; i++ {
		if i == len(path) || path[i] == '/' {
			if rt := ps.routes[path[:i]]; rt != nil {
				found = rt
			}
		}
	}
	return found
}

// hostTable finds the route of an authority: as it is written first, then without its port.
type hostTable map[string]*route

func (h hostTable) match(authority string) *route {
	if len(h) == 0 {
		return nil
	}
	if rt := h[strings.ToLower(authority)]; rt != nil {
		return rt
	}
	return h[hostname(authority)]
}
