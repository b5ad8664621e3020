// Package authflowtest is a fake identity provider for tests and the demo; no production code imports it.
//
// A [Provider] really checks what a strict provider checks: client authentication, redirect URIs, PKCE, single use of codes
// and of refresh tokens, with revocation of the whole grant on reuse. It can [Provider.Misbehave] in every way that token
// endpoints are known to, it counts what it is asked, and it knows of each token whose it is.
//
// It is an [http.Handler]. [New] serves it over real HTTP; [InMemory] with [Provider.Transport] needs no socket, so that it
// works inside a testing/synctest bubble; [NewProvider] needs no test at all.
package authflowtest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Refresh is how the provider treats a used refresh token. Every refresh issues a new one.
type Refresh string

// The classes. A reuse that a class does not allow revokes every token of the grant.
const (
	Reusable Refresh = "reusable" // old refresh tokens stay usable
	Rotating Refresh = "rotating" // a used one stays usable for Config.Grace
	OneTime  Refresh = "one_time" // a used one is never accepted again
)

// Config is how a Provider behaves. The zero Config is a usable provider.
type Config struct {
	BaseURL      string   // where the endpoints are; default https://idp.test; New replaces it by the server's URL
	ClientID     string   // default "client-1"
	ClientSecret string   // default "CANARY-client-secret"
	ClientAuth   string   // "post" (default), "basic" or "none"; any other method than this one is refused
	RedirectURIs []string // registered ones; nil: every one is, until Register is called; empty: none is

	User   string   // who consents where there is no Consent hook; default "alice"
	Scopes []string // granted whatever is requested; nil: as requested
	Issuer string   // sent as `iss` to the callback (RFC 9207); empty: not sent
	NoPKCE bool     // accept authorization requests without code_challenge

	Lifetime     time.Duration // of access tokens; default 1 h; negative: they live an hour and the answer does not say so
	TokenType    string        // default "Bearer"
	Refresh      Refresh       // default Reusable
	Grace        time.Duration // of Rotating; default 30 s
	NoRefresh    bool          // issue no refresh tokens
	KeepRefresh  bool          // Reusable: a refresh answers no new refresh token; the old one goes on
	AccessDies   bool          // a refresh kills the previous access tokens of the grant
	IDToken      bool          // add an id_token whose claims are iss, sub, aud, iat, exp and, to a code, the nonce that was asked for
	CodeLifetime time.Duration // default 1 min

	// Consent decides who consents, in place of User. It may write a page itself and return done == false; a later request
	// to the same URL, of any method, asks it again. It denies by calling Provider.Deny and returning done == false.
	Consent func(w http.ResponseWriter, r *http.Request) (user string, done bool)

	// Account says what is told of a user beside the tokens; nil: the usual claims of the ID token and nothing more. It must not
	// call the Provider.
	Account func(user string) Account
}

// Account is whose a consent is, as providers name it.
type Account struct {
	Claims   map[string]any // of the ID token, over the usual ones; nil: that claim is left out
	Members  map[string]any // of the token endpoint's answers, such as "team"
	Callback url.Values     // parameters beside the code, such as "realmId"
}

// Provider is a fake identity provider with the endpoints {base}/authorize, {base}/token and {base}/revoke and the resource
// {base}/api/…. One or more path segments in front of these are a tenant: a grant made at one tenant is unknown at another.
// All methods may be called concurrently.
type Provider struct {
	BaseURL          string
	AuthorizationURL string
	TokenURL         string
	RevocationURL    string
	APIURL           string // without trailing slash

	cfg    Config
	closed chan struct{} // ends every wait of a misbehaviour

	mu     sync.Mutex // guards everything below
	ledger ledger
	record record
	plan   plan
	down   bool
}

// NewProvider returns a Provider that listens nowhere: serve it, or use its Client or Transport.
func NewProvider(cfg Config) *Provider {
	cfg.BaseURL = strings.TrimSuffix(defaulted(cfg.BaseURL, "https://idp.test"), "/")
	cfg.ClientID = defaulted(cfg.ClientID, "client-1")
	cfg.ClientSecret = defaulted(cfg.ClientSecret, "CANARY-client-secret")
	cfg.ClientAuth = defaulted(cfg.ClientAuth, "post")
	cfg.User = defaulted(cfg.User, "alice")
	cfg.TokenType = defaulted(cfg.TokenType, "Bearer")
	cfg.Refresh = defaulted(cfg.Refresh, Reusable)
	cfg.Grace = defaulted(cfg.Grace, 30*time.Second)
	cfg.Lifetime = defaulted(cfg.Lifetime, time.Hour)
	cfg.CodeLifetime = defaulted(cfg.CodeLifetime, time.Minute)
	p := &Provider{cfg: cfg, closed: make(chan struct{}), ledger: newLedger()}
	p.setBase(cfg.BaseURL)
	return p
}

// New serves a Provider over HTTP on loopback until the test ends.
func New(t testing.TB, cfg Config) *Provider {
	p := NewProvider(cfg)
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	t.Cleanup(p.Close) // runs first: a held POST would keep the server from closing
	p.setBase(srv.URL)
	return p
}

// InMemory returns a Provider that listens nowhere and is closed when the test ends. Inside a synctest bubble use this, with
// that bubble's t: a POST that is still being held would otherwise count as a deadlock.
func InMemory(t testing.TB, cfg Config) *Provider {
	p := NewProvider(cfg)
	t.Cleanup(p.Close)
	return p
}

// Close ends every wait of a misbehaviour; the Provider goes on answering.
func (p *Provider) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
}

// ClientID returns the registered client id.
func (p *Provider) ClientID() string { return p.cfg.ClientID }

// ClientSecret returns the registered client secret.
func (p *Provider) ClientSecret() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cfg.ClientSecret
}

// Register adds a redirect URI to the registered ones.
func (p *Provider) Register(uri string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.RedirectURIs = append(p.cfg.RedirectURIs, uri)
}

// SetClientSecret changes what the provider expects, as when a secret expired.
func (p *Provider) SetClientSecret(secret string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.ClientSecret = secret
}

// SetLifetime changes the lifetime of access tokens issued from now on; see Config.Lifetime.
func (p *Provider) SetLifetime(life time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Lifetime = life
}

func (p *Provider) setBase(base string) {
	p.BaseURL = base
	p.AuthorizationURL = base + "/authorize"
	p.TokenURL = base + "/token"
	p.RevocationURL = base + "/revoke"
	p.APIURL = base + "/api"
}

// ServeHTTP routes by the last path segment; what it does not know is counted as a stray request.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tenant, endpoint := splitTenant(r.URL.Path)
	switch endpoint {
	case "authorize":
		p.serveAuthorize(w, r, tenant)
	case "token":
		p.serveToken(w, r, tenant)
	case "revoke":
		p.serveRevoke(w, r)
	case "api":
		p.serveAPI(w, r)
	default:
		p.stray(r)
		http.NotFound(w, r)
	}
}

// splitTenant splits "/contoso/v2/token" into "/contoso/v2" and "token".
func splitTenant(path string) (tenant, endpoint string) {
	if strings.Contains(path+"/", "/api/") {
		return "", "api"
	}
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

func defaulted[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
