package main

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/proxy"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// plainFormat is how a credential is sent where the configuration says nothing.
const plainFormat = "Bearer {access_token}"

// integrations translates the configuration for a Broker.
func integrations(cfg *config.Config) []*authflow.Integration {
	list := make([]*authflow.Integration, 0, len(cfg.Integrations))
	for _, in := range cfg.Integrations {
		list = append(list, integration(in))
	}
	return list
}

func integration(in *config.Integration) *authflow.Integration {
	out := &authflow.Integration{
		Name:         in.Name,
		Description:  in.Description,
		Flow:         authflow.Flow(in.Flow),
		ClientID:     in.ClientID,
		ClientAuth:   authflow.ClientAuth(in.ClientAuth),
		Resolve:      endpoints(in),
		Scopes:       in.Scopes,
		Audience:     in.Audience,
		Issuer:       in.Issuer,
		PKCEOff:      in.PKCE == "off",
		Refresh:      authflow.RefreshClass(in.RefreshTokens),
		IdleLifetime: in.RefreshTokenIdleLifetime,
		Lifetime:     in.DefaultTokenLifetime,
		TokenTimeout: in.TokenTimeout,
		RefreshGrace: in.RefreshGrace,
		AccessDies:   in.AccessTokenDiesOnRefresh,
		Fallback:     in.Fallback != "none",
		Orgs:         namedOrgs(in),
		Format:       format(in),
	}
	if out.ClientAuth != authflow.AuthNone {
		out.ClientSecret = in.ClientSecret.Reveal
	}
	if out.Flow == authflow.ClientCredentials {
		out.Own = func(org tokenstore.Org) bool {
			_, ok := in.OrgSettings[string(org)]
			return ok
		}
	}
	return out
}

// endpoints resolves the templates that concern the identity provider.
func endpoints(in *config.Integration) func(tokenstore.Org) (authflow.Endpoints, error) {
	return func(org tokenstore.Org) (authflow.Endpoints, error) {
		r, err := in.Resolve(string(org))
		if err != nil {
			return authflow.Endpoints{}, err
		}
		return authflow.Endpoints{
			EntityID:            r.EntityID,
			AuthorizationURL:    r.AuthorizationURL,
			TokenURL:            r.TokenURL,
			RevocationURL:       r.RevocationURL,
			AuthorizationParams: r.AuthorizationParams,
			TokenParams:         r.TokenParams,
		}, nil
	}
}

// namedOrgs returns the orgs that the configuration names, sorted.
func namedOrgs(in *config.Integration) []tokenstore.Org {
	named := make(map[tokenstore.Org]bool)
	for _, org := range in.OnlyOrgs {
		named[tokenstore.Org(org)] = true
	}
	for org := range in.OrgSettings {
		named[tokenstore.Org(org)] = true
	}
	return slices.Sorted(maps.Keys(named))
}

// format returns nil for a bearer token in a header: only where the operator says how to send a token may the provider issue
// one of another type (RFC 6749 section 7.1).
func format(in *config.Integration) func(string) string {
	if in.InjectFormat == "" || in.InjectFormat == plainFormat {
		return nil
	}
	return func(access string) string { return strings.ReplaceAll(in.InjectFormat, "{access_token}", access) }
}

// proxyConfig translates the configuration for a Proxy.
func proxyConfig(cfg *config.Config, broker proxy.Broker, metrics *proxy.Metrics, usage *proxy.Usage, log *slog.Logger) proxy.Config {
	out := proxy.Config{
		Broker:      broker,
		Open:        !guarded(cfg) && (loopback(cfg.Proxy.Listen) || !cfg.Proxy.TrustNetwork),
		BodyIdle:    cfg.Proxy.BodyIdle,
		WriteIdle:   cfg.Proxy.WriteIdle,
		PublicURL:   cfg.Proxy.PublicURL,
		Log:         log,
		LogRequests: cfg.Log.Requests,
		Metrics:     metrics,

		MaxConcurrent: cfg.Proxy.MaxConcurrent,
		Usage:         usage,
	}
	for _, in := range cfg.Integrations {
		out.Routes = append(out.Routes, route(in))
	}
	for _, c := range cfg.Callers {
		out.Callers = append(out.Callers, caller(c))
	}
	for _, j := range cfg.CallerJWT {
		out.JWT = append(out.JWT, jwtIssuer(j))
	}
	if cfg.Proxy.IncludeConnectURL {
		out.ConnectURL = connectURL(cfg.Auth.PublicURL)
	}
	return out
}

func caller(c config.Caller) proxy.Caller {
	out := proxy.Caller{
		Name: c.Name, SANs: c.SANs, Subjects: subjects(c), Orgs: c.Orgs, Integrations: c.Integrations, Allow: c.Allow,
		MayReadTokens: c.MayReadTokens,
	}
	for _, k := range c.Keys {
		out.Keys = append(out.Keys, proxy.Key(k))
	}
	return out
}

func route(in *config.Integration) proxy.Route {
	r := proxy.Route{
		Integration:           in.Name,
		Prefix:                in.Route,
		Hosts:                 in.Hosts,
		Target:                target(in),
		Header:                in.InjectHeader,
		Query:                 in.InjectQuery,
		Methods:               in.Methods,
		Allow:                 in.Allow,
		Deny:                  in.Deny,
		ExposeToken:           in.ExposeToken,
		WebSocket:             in.WebSocket,
		RewriteLinks:          in.RewriteLinks,
		MaxBody:               in.MaxBody,
		ReplayBodyLimit:       in.ReplayBodyLimit,
		DialTimeout:           in.DialTimeout,
		ResponseHeaderTimeout: in.ResponseHeaderTimeout,
		WebSocketIdle:         in.WebSocketIdle,
		WebSocketLifetime:     in.WebSocketLifetime,
		MaxWebSockets:         in.WebSockets,
		AllowPrivate:          in.AllowPrivate,
		Limits:                limits(in.Limits),
	}
	if in.OnlyOrgs != nil {
		r.OnlyOrgs = make([]tokenstore.Org, 0, len(in.OnlyOrgs)) // an empty list stays one: nil would let every org in
	}
	for org := range in.OrgSettings {
		r.OwnTargets = append(r.OwnTargets, tokenstore.Org(org))
	}
	for _, org := range in.OnlyOrgs {
		r.OnlyOrgs = append(r.OnlyOrgs, tokenstore.Org(org))
	}
	return r
}

func limits(l config.Limits) proxy.Limits {
	return proxy.Limits{
		PerOrg:           proxy.Quota(l.PerOrg),
		PerCaller:        proxy.Quota(l.PerCaller),
		Concurrent:       l.Concurrent,
		IgnoreRetryAfter: !l.UpstreamRetryAfter,
	}
}

// target resolves the templates that concern the upstream.
func target(in *config.Integration) func(tokenstore.Org) (proxy.Target, error) {
	return func(org tokenstore.Org) (proxy.Target, error) {
		r, err := in.Resolve(string(org))
		if err != nil {
			return proxy.Target{}, err
		}
		return proxy.Target{BaseURL: strings.TrimSuffix(r.Upstream, "/"), Headers: r.Headers}, nil
	}
}

// connectURL leads a person to the connection on the screen. It is not a connect link: whoever follows it must sign in.
func connectURL(publicURL string) func(tokenstore.Slot) string {
	return func(slot tokenstore.Slot) string {
		filter := url.Values{"integration": {slot.Integration}, "q": {string(slot.Org)}}
		return publicURL + "/integrations?" + filter.Encode()
	}
}

// consoleConfig translates the configuration for the screen and the API.
func consoleConfig(cfg *config.Config, broker *authflow.Broker, kept store, log *slog.Logger) console.Config {
	out := console.Config{Broker: broker, Sessions: kept, PublicURL: cfg.Auth.PublicURL, Log: log}
	out.Upkeep.Rekey = kept.Rekey
	out.Audit = console.Audit{Record: broker.Audit, History: broker.History}
	if file, ok := kept.(*tokenstore.File); ok {
		out.Upkeep.Backup = file.Backup
	}
	for _, o := range cfg.Auth.Operators {
		out.Operators = append(out.Operators, console.Operator{Name: o.Name, Token: o.Token.Reveal, Rights: rights(o.Rights)})
	}
	out.OIDC = signIn(cfg.Auth.OIDC)
	return out
}

// signIn translates the provider at which operators sign in; nil stays nil.
func signIn(o *config.OIDC) *console.OIDC {
	if o == nil {
		return nil
	}
	out := &console.OIDC{
		Issuer: o.Issuer, ClientID: o.ClientID, ClientSecret: o.ClientSecret.Reveal, Scopes: o.Scopes,
		GroupsClaim: o.GroupsClaim, TrustEmail: o.TrustEmail, Contact: o.Contact,
	}
	for _, r := range o.Rules {
		out.Rules = append(out.Rules, console.Rule{Emails: r.Emails, Domains: r.Domains, Groups: r.Groups, Claims: r.Claims, Rights: rights(r.Rights)})
	}
	return out
}

func rights(r config.Rights) console.Rights {
	return console.Rights{ReadOnly: r.Viewer, Integrations: r.Integrations}
}

// keyring returns the configured keys.
func keyring(cfg *config.Config) (*tokenstore.Keyring, error) {
	keys := make([]tokenstore.Key, 0, len(cfg.EncryptionKeys))
	for _, k := range cfg.EncryptionKeys {
		keys = append(keys, tokenstore.Key{ID: k.ID, Bytes: []byte(k.Bytes.Reveal())})
	}
	return tokenstore.NewKeyring(keys...)
}

// loopback reports whether only this machine can reach a listener's address.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
