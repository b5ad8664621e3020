package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// OIDC is the OpenID provider at which people sign in. What it must be is found by discovery, at the first sign-in page and
// not before, so that a provider that is down keeps nothing from starting.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret func() string // asked at every use
	Scopes       []string      // with openid
	GroupsClaim  string        // "": groups
	TrustEmail   bool          // addresses count although the provider does not say that it has verified them
	Contact      string        // whom somebody asks that no rule lets in; "": the operators of this Bifrost
	Rules        []Rule        // the first that lets somebody in gives the rights; at least one
}

// Bounds of what is asked of the provider.
const (
	providerTimeout = 5 * time.Second  // of one request
	providerPage    = 3 * time.Second  // that the sign-in page waits for a discovery
	providerRetry   = 5 * time.Second  // between discoveries that fail
	providerLife    = time.Hour        // of a discovery that did not; while a later one fails, it is used on
	providerAnswer  = 1 << 20          // bytes
	exchangeTimeout = 15 * time.Second // of all that a callback asks, keys included
)

// openID finds the provider and asks it.
type openID struct {
	OIDC
	client *http.Client
	log    *slog.Logger
	flight singleflight.Group

	mu    sync.Mutex // guards the fields below
	found *provider  // nil: never
	again time.Time  // when to look again; until then the last result counts
	err   error      // why nothing was found
}

// provider is what discovery has found.
type provider struct {
	*oidc.Provider
	oauth2.Endpoint
	sendsIssuer bool // the answers to authorization requests always name it (RFC 9207)
}

func newOpenID(cfg OIDC, log *slog.Logger) (*openID, error) {
	if cfg.Issuer == "" || cfg.ClientID == "" || cfg.ClientSecret == nil || !slices.Contains(cfg.Scopes, oidc.ScopeOpenID) {
		return nil, errors.New("console: sign-in by OIDC needs an issuer, a client with a secret, and the scope openid")
	}
	if len(cfg.Rules) == 0 || slices.ContainsFunc(cfg.Rules, Rule.empty) {
		return nil, errors.New("console: sign-in by OIDC needs rules that say whom they let in")
	}
	if cfg.GroupsClaim == "" {
		cfg.GroupsClaim = "groups"
	}
	if cfg.Contact == "" {
		cfg.Contact = "the operators of this Bifrost"
	}
	return &openID{OIDC: cfg, client: newProviderClient(), log: log}, nil
}

// newProviderClient returns a client that follows no redirect, because a secret goes where it was sent to, and uses no proxy.
func newProviderClient() *http.Client {
	transport := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: providerTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    providerTimeout,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        3 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	return &http.Client{
		Transport: bounded{transport}, Timeout: providerTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded cuts answers off that are too long, which makes them unreadable.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, providerAnswer), res.Body}
	}
	return res, err
}

// with returns a context in which the libraries use our client.
func (o *openID) with(ctx context.Context) context.Context { return oidc.ClientContext(ctx, o.client) }

// provider returns what discovery finds, which is asked for at most once per providerRetry while it fails, by one request at a
// time for all who wait. The error holds nothing that the provider wrote.
func (o *openID) provider(ctx context.Context) (*provider, error) {
	if found, err, known := o.known(); known {
		return found, err
	}
	done := o.flight.DoChan("", func() (any, error) {
		if found, err, known := o.known(); known { // another flight has just ended
			return found, err
		}
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), providerTimeout)
		defer cancel()
		return o.remember(o.discover(within))
	})
	select {
	case result := <-done:
		found, _ := result.Val.(*provider)
		return found, result.Err
	case <-ctx.Done():
		return nil, errors.New("discovery takes too long")
	}
}

// known returns the last result, if it still counts.
func (o *openID) known() (*provider, error, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found, o.err, time.Now().Before(o.again)
}

// remember keeps a discovery's result. After a failure the provider that was found before is used on.
func (o *openID) remember(found *provider, err error) (*provider, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.again = time.Now().Add(providerLife)
	if err != nil {
		o.again = time.Now().Add(providerRetry)
		o.log.Warn("the sign-in provider gives no usable answer", "issuer", o.Issuer, "cause", err.Error())
		found = o.found
	}
	if found != nil {
		err = nil
	}
	o.found, o.err = found, err
	return found, err
}

// discover asks the provider for its endpoints (OpenID Connect Discovery section 4).
func (o *openID) discover(ctx context.Context) (*provider, error) {
	p, err := oidc.NewProvider(o.with(ctx), o.Issuer)
	if err != nil {
		return nil, discoveryError(err)
	}
	var more struct {
		Keys        string   `json:"jwks_uri"`
		Auth        []string `json:"token_endpoint_auth_methods_supported"`
		SendsIssuer bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := p.Claims(&more); err != nil {
		return nil, errors.New("the discovery document is malformed")
	}
	found := &provider{Provider: p, Endpoint: p.Endpoint(), sendsIssuer: more.SendsIssuer}
	found.AuthStyle = oauth2.AuthStyleInHeader // the standard's default; never probed for
	if len(more.Auth) > 0 && !slices.Contains(more.Auth, "client_secret_basic") {
		found.AuthStyle = oauth2.AuthStyleInParams
	}
	endpoints := []string{found.AuthURL, found.TokenURL, more.Keys}
	if userinfo := p.UserInfoEndpoint(); userinfo != "" {
		endpoints = append(endpoints, userinfo)
	}
	if slices.ContainsFunc(endpoints, func(s string) bool { return !secureURL(s) }) {
		return nil, errors.New("the discovery document names an endpoint that is not https, or misses one")
	}
	return found, nil
}

// discoveryError says what went wrong without the body, which the library quotes.
func discoveryError(err error) error {
	if _, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return errors.New("the discovery document is of another issuer than auth.oidc.issuer: they are compared byte for byte")
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("no answer to discovery: %w", e.Err)
	}
	return errors.New("the answer to discovery is no discovery document")
}

// secureURL says whether what is sent there reaches its host alone: by https, or on this machine.
func secureURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (strings.EqualFold(u.Hostname(), "localhost") || ip != nil && ip.IsLoopback())
}

// origin returns the scheme and host of the address where people sign in.
func (p *provider) origin() string {
	u, err := url.Parse(p.AuthURL)
	if err != nil {
		return "" // discover has parsed it
	}
	return u.Scheme + "://" + u.Host
}

// config returns the OAuth client at the provider.
func (o *openID) config(p *provider, redirectURI string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret(), Endpoint: p.Endpoint, RedirectURL: redirectURI, Scopes: o.Scopes,
	}
}
