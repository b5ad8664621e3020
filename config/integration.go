package config

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Integration is one OAuth application and the upstream API that it opens.
type Integration struct {
	Name        string
	Description string
	Route       string
	Hosts       []string // lower case, with a port where it is not the scheme's own
	Upstream    string   // template
	Flow        string   // authorization_code (default), client_credentials

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
	WebSocket       bool
	RewriteLinks    bool
	MaxBody         int64 // bytes; 0: unlimited
	ReplayBodyLimit int64 // bytes; default 64 KiB

	DialTimeout           time.Duration // default 10 s
	ResponseHeaderTimeout time.Duration // default 60 s
	TokenTimeout          time.Duration // default 0: by refresh class

	DefaultTokenLifetime     time.Duration // default 1 h
	RefreshTokenIdleLifetime time.Duration // default 0: unknown

	resolutions map[string]resolution // by org; see Resolve
}

// OrgSetting is one org's values of an integration's placeholders.
type OrgSetting struct {
	EntityID string
	Vars     map[string]string
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
	all := o.all()
	for _, key := range o.keys {
		item := all[key]
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
	set(o.need("upstream"), &in.Upstream, upstreamURL)
	in.readClient(o)
	in.readEndpoints(o)
	in.readOrgs(o)
	in.readTraffic(o)
	in.readInjection(o)
	in.readTimes(o)
	in.checkTemplates(o)
	in.resolutions = in.resolveAll()
	in.checkResolved(o)
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

func (in *Integration) readOrgs(o *object) {
	set(o.at("default_entity_id"), &in.DefaultEntityID, value)
	in.DefaultVars = readVars(o.at("default_vars"))
	settings, _ := o.at("org_settings").object()
	all := settings.all()
	for _, key := range settings.keys {
		n := all[key]
		if _, err := org(key); err != nil {
			n.problem("%v", err)
			continue
		}
		var own OrgSetting
		entry, _ := n.object()
		set(entry.at("entity_id"), &own.EntityID, value)
		own.Vars = readVars(entry.at("vars"))
		entry.close()
		if in.OrgSettings == nil {
			in.OrgSettings = map[string]OrgSetting{}
		}
		in.OrgSettings[key] = own
	}
	setList(o.at("only_orgs"), &in.OnlyOrgs, org)
	in.Fallback = "global"
	set(o.at("fallback"), &in.Fallback, oneOf("global", "none"))
}

// readVars reads the values of {vars.NAME}.
func readVars(n node) map[string]string {
	return readMap(n, func(at node, name string) bool {
		if varPattern.MatchString(name) {
			return true
		}
		at.problem("is no name of a variable: it must begin with a letter and hold letters, digits, _ - alone")
		return false
	}, value)
}

// readMap reads a mapping of names to single values. Nil: not given.
func readMap(n node, allowed func(at node, name string) bool, parse func(string) (string, error)) map[string]string {
	o, _ := n.object()
	var m map[string]string
	all := o.all()
	for _, name := range o.keys {
		var v string
		if set(all[name], &v, parse) && allowed(all[name], name) {
			putIn(&m, name, v)
		}
	}
	return m
}

func (in *Integration) readTraffic(o *object) {
	setList(o.at("methods"), &in.Methods, method)
	if in.Methods == nil {
		in.Methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	}
	setList(o.at("allow"), &in.Allow, rule)
	setList(o.at("deny"), &in.Deny, rule)
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
	timeouts.close()
	set(o.at("default_token_lifetime"), &in.DefaultTokenLifetime, span)
	set(o.at("refresh_token_idle_lifetime"), &in.RefreshTokenIdleLifetime, span)
}

// located returns where a templated text stands.
func located(o *object, f field) node {
	n := o.at(f.key)
	if f.name == "" {
		return n
	}
	m, _ := n.object()
	return m.at(f.name)
}

// checkTemplates reports placeholders that no org could ever resolve.
func (in *Integration) checkTemplates(o *object) {
	all := in.values(OrgSetting{})
	for org, own := range in.OrgSettings {
		if in.OnlyOrgs == nil || slices.Contains(in.OnlyOrgs, org) {
			maps.Copy(all, in.values(own))
		}
	}
	for f := range in.templates() {
		t, _ := parseTemplate(f.text) // checked when it was read
		for _, name := range t.placeholders() {
			if _, ok := all[name]; ok {
				continue
			}
			where := "default_entity_id"
			if v, ok := strings.CutPrefix(name, "vars."); ok {
				where = "default_vars." + v
			}
			located(o, f).problem("{%s} has no value for any org: set %s, or org_settings", name, where)
		}
	}
}

// checkResolved reports values that make no valid host of a URL, such as one that is too long for a label.
func (in *Integration) checkResolved(o *object) {
	settings, _ := o.at("org_settings").object()
	for org, r := range in.resolutions {
		for _, f := range []field{{"upstream", "", r.Upstream}, {"authorization_url", "", r.AuthorizationURL}, {"token_url", "", r.TokenURL}, {"revocation_url", "", r.RevocationURL}} {
			if f.text == "" || checkURL(f.text, false, true) == nil {
				continue
			}
			n := settings.at(org)
			if org == defaults {
				n = o.at(f.key)
			}
			n.problem("its values make no valid URL of %s", f.key)
		}
	}
}
