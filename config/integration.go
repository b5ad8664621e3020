package config

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// minGrace is the shortest refresh_grace: a POST is given a third of it, so that a second one still ends in time.
const minGrace = 6 * time.Second

var defaultMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// Integration is one OAuth application and the upstream API that it opens.
type Integration struct {
	Name        string
	Description string
	Route       string
	Hosts       []string // lower case, with a port where it is not the scheme's own
	Upstream    string   // template
	// AllowPrivate are the networks beside the public ones to which the upstream's name may resolve. A loopback or private
	// address that stands in Upstream itself needs none.
	AllowPrivate []netip.Prefix
	Flow         string // authorization_code (default), client_credentials

	ClientID         string
	ClientSecret     Secret // empty with client_auth none
	ClientAuth       string // post (default), basic, none
	AuthorizationURL string // template
	TokenURL         string // template
	RevocationURL    string // template
	Issuer           string
	Audience         string
	Scopes           []string
	PKCE             string // s256 (default), off
	RefreshTokens    string // reusable (default), rotating, one_time

	AuthorizationParams map[string]string // templates
	TokenParams         map[string]string // templates
	Headers             map[string]string // templates

	DefaultEntityID string
	DefaultVars     map[string]string
	OrgSettings     map[string]OrgSetting
	OnlyOrgs        []string // nil: every org
	Fallback        string   // global (default), none

	InjectHeader string // default Authorization; empty with InjectQuery
	InjectFormat string // default "Bearer {access_token}"; "{access_token}" with InjectQuery
	InjectQuery  string // name of a query parameter; empty: a header

	Methods         []string // default GET HEAD POST PUT PATCH DELETE OPTIONS
	Allow, Deny     []string // "METHOD /path/**"
	ExposeToken     bool     // callers with MayReadTokens may read access tokens; what is above does not bind a token
	WebSocket       bool
	RewriteLinks    bool
	MaxBody         int64 // bytes; 0: unlimited
	ReplayBodyLimit int64 // bytes; default 64 KiB
	Limits          Limits

	DialTimeout           time.Duration // default 10 s
	ResponseHeaderTimeout time.Duration // default 60 s
	TokenTimeout          time.Duration // default 0: by refresh class

	WebSocketIdle     time.Duration // default 10 min: no byte in either direction
	WebSocketLifetime time.Duration // default 12 h
	WebSockets        int           // open at a time; default 1000

	DefaultTokenLifetime     time.Duration // default 1 h
	RefreshTokenIdleLifetime time.Duration // default 0: unknown
	RefreshGrace             time.Duration // rotating: a used refresh token stays usable for so long; default 30 s; 0 otherwise
	AccessTokenDiesOnRefresh bool          // a refresh makes the previous access token invalid

	resolutions map[string]resolution // by org; see Resolve
}

// Ruled reports whether methods, allow or deny are for this integration's requests to obey.
func (in *Integration) Ruled() bool {
	return len(in.Allow) > 0 || len(in.Deny) > 0 || !slices.Equal(in.Methods, defaultMethods)
}

// Format prints the name alone, for every verb. Without it, a verb that does not fit a pointer, such as %s, prints the fields
// as they are: fmt calls no methods while it reports a bad verb.
func (in *Integration) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, in.Name) // f is a buffer
}

func readIntegrations(n node) []*Integration {
	o, ok := n.object()
	if !ok {
		return nil
	}
	if n.given() && len(o.keys) == 0 {
		n.problem("is empty: at least one integration is needed")
	}
	var list []*Integration
	routes, hosts := unique{}, unique{}
	for key, item := range o.all() {
		in, o := readIntegration(key, item)
		list = append(list, in)
		if in.Route != "" {
			routes.check(o.at("route"), in.Route)
		}
		for i, host := range in.Hosts {
			hosts.check(o.at("hosts").items()[i], host)
		}
	}
	slices.SortFunc(list, func(a, b *Integration) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// readIntegration reads one integration, and returns the mapping that it stands in too.
func readIntegration(key string, n node) (*Integration, *object) {
	in := &Integration{Name: key, Flow: "authorization_code"}
	if _, err := name(key); err != nil {
		n.problem("%v", err)
	}
	o, ok := n.object()
	if !ok {
		return in, o
	}
	set(o.at("description"), &in.Description, prose)
	set(o.need("route"), &in.Route, route)
	setList(o.at("hosts"), &in.Hosts, hostPort)
	in.readUpstream(o)
	in.readClient(o)
	in.readEndpoints(o)
	orgs := in.readOrgs(o)
	in.readTraffic(o)
	in.readInjection(o)
	in.readTimes(o)
	in.resolutions = in.resolveAll()
	if orgs { // else a value may be missing because it is wrong
		in.checkTemplates(o)
		in.checkResolved(o)
	}
	o.close()
	return in, o
}

func (in *Integration) readClient(o *object) {
	flow, secret := o.at("flow"), o.at("client_secret")
	set(flow, &in.Flow, oneOf("authorization_code", "client_credentials"))
	set(o.need("client_id"), &in.ClientID, line)
	in.ClientAuth = "post"
	auth := o.at("client_auth")
	set(auth, &in.ClientAuth, oneOf("post", "basic", "none"))
	switch {
	case in.ClientAuth != "none" && !secret.given():
		secret.problem("is missing: give {env: NAME} or {file: PATH}, or client_auth: none for a public client")
	case in.ClientAuth == "none" && secret.given():
		secret.problem("would not be sent with client_auth: none: remove one of them")
	case in.ClientAuth == "none" && in.Flow == "client_credentials":
		auth.problem("cannot be none with flow: client_credentials (RFC 6749 section 4.4)")
	}
	in.ClientSecret, _ = secret.secret()
	in.PKCE, in.RefreshTokens = "s256", "reusable"
	set(o.at("pkce"), &in.PKCE, oneOf("s256", "off"))
	set(o.at("refresh_tokens"), &in.RefreshTokens, oneOf("reusable", "rotating", "one_time"))
}

func (in *Integration) readEndpoints(o *object) {
	authorization := o.at("authorization_url")
	if !authorization.given() && in.Flow == "authorization_code" {
		authorization.problem("is missing: flow: authorization_code begins there")
	}
	set(authorization, &in.AuthorizationURL, endpointURL)
	set(o.need("token_url"), &in.TokenURL, endpointURL)
	set(o.at("revocation_url"), &in.RevocationURL, endpointURL)
	set(o.at("issuer"), &in.Issuer, issuerURL)
	set(o.at("audience"), &in.Audience, line)
	if at := o.at("scopes"); at.given() {
		set(at, &in.Scopes, scopes)
	}
	in.readParams(o)
}

func (in *Integration) readTraffic(o *object) {
	setList(o.at("methods"), &in.Methods, method)
	if in.Methods == nil {
		in.Methods = slices.Clone(defaultMethods)
	}
	setList(o.at("allow"), &in.Allow, rule)
	setList(o.at("deny"), &in.Deny, rule)
	setBool(o.at("expose_token"), &in.ExposeToken)
	setBool(o.at("websocket"), &in.WebSocket)
	setBool(o.at("rewrite_links"), &in.RewriteLinks)
	in.ReplayBodyLimit = 64 << 10
	set(o.at("replay_body_limit"), &in.ReplayBodyLimit, size)
	set(o.at("max_body"), &in.MaxBody, size)
}

func (in *Integration) readTimes(o *object) {
	in.DialTimeout, in.ResponseHeaderTimeout, in.DefaultTokenLifetime = 10*time.Second, time.Minute, time.Hour
	timeouts, _ := o.at("timeouts").object()
	set(timeouts.at("dial"), &in.DialTimeout, span)
	set(timeouts.at("response_header"), &in.ResponseHeaderTimeout, span)
	set(timeouts.at("token"), &in.TokenTimeout, span)
	limits, _ := o.at("limits").object()
	in.Limits = readLimits(limits)
	in.readWebSocket(timeouts, limits)
	timeouts.close()
	limits.close()
	set(o.at("default_token_lifetime"), &in.DefaultTokenLifetime, span)
	set(o.at("refresh_token_idle_lifetime"), &in.RefreshTokenIdleLifetime, span)
	grace := o.at("refresh_grace")
	if in.RefreshTokens == "rotating" {
		in.RefreshGrace = 30 * time.Second
	} else if grace.given() {
		grace.problem("says how long a rotating refresh token stays usable: set refresh_tokens: rotating, or remove it")
	}
	set(grace, &in.RefreshGrace, span)
	if in.RefreshTokens == "rotating" && 0 < in.RefreshGrace && in.RefreshGrace < minGrace {
		grace.problem("is too short for a second attempt: give at least %s, or set refresh_tokens: one_time", minGrace)
	}
	setBool(o.at("access_token_dies_on_refresh"), &in.AccessTokenDiesOnRefresh)
}
