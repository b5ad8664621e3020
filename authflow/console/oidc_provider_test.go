package console_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
)

const ssoSecret = "CANARY-sso-client-secret"

// idp is a small OpenID provider that checks what it is asked. Its fields may be changed before a sign-in.
type idp struct {
	*httptest.Server
	t         *testing.T
	key       *ecdsa.PrivateKey
	metadata  map[string]any                                 // of discovery, over the defaults
	claims    map[string]any                                 // of the ID token, over the defaults; nil removes one
	sign      func(claims map[string]any) string             // nil: with the key
	userinfo  map[string]any                                 // nil: there is no such endpoint
	token     func(w http.ResponseWriter, _ url.Values) bool // nil: as usual; true: it has answered
	down      atomic.Bool
	asked     atomic.Int32 // requests of any kind
	exchanges atomic.Int32
	usage     atomic.Int32 // of userinfo

	mu      sync.Mutex            // guards the codes
	pending map[string]url.Values // authorization requests by code
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	p := &idp{t: t, key: key, claims: map[string]any{}, metadata: map[string]any{}, pending: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: p.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
	})
	mux.HandleFunc("/token", p.exchange)
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		p.usage.Add(1)
		if r.Header.Get("Authorization") != "Bearer CANARY-access" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reply(w, p.userinfo)
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		if p.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("CANARY-body-of-the-provider"))
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func reply(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func (p *idp) discovery(w http.ResponseWriter, _ *http.Request) {
	doc := map[string]any{
		"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
		"id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"},
	}
	if p.userinfo != nil {
		doc["userinfo_endpoint"] = p.URL + "/userinfo"
	}
	for name, value := range p.metadata {
		doc[name] = value
	}
	reply(w, doc)
}

// authorize signs somebody in and returns the code for an authorization request.
func (p *idp) authorize(request string) (code string, q url.Values) {
	p.t.Helper()
	u, err := url.Parse(request)
	require.NoError(p.t, err)
	require.Equal(p.t, p.URL+"/authorize", u.Scheme+"://"+u.Host+u.Path)
	q = u.Query()
	code = "CANARY-code-" + rand.Text()
	p.mu.Lock()
	p.pending[code] = q
	p.mu.Unlock()
	return code, q
}

// exchange redeems a code once, for its client, with its verifier and its redirect URI.
func (p *idp) exchange(w http.ResponseWriter, r *http.Request) {
	p.exchanges.Add(1)
	id, secret, _ := r.BasicAuth()
	_ = r.ParseForm()
	if p.token != nil && p.token(w, r.PostForm) {
		return
	}
	p.mu.Lock()
	asked, ok := p.pending[r.PostForm.Get("code")]
	delete(p.pending, r.PostForm.Get("code"))
	p.mu.Unlock()
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	switch {
	case id != "bifrost" || secret != ssoSecret:
		w.WriteHeader(http.StatusUnauthorized)
		reply(w, map[string]any{"error": "invalid_client", "error_description": "CANARY-description"})
	case !ok, asked.Get("client_id") != id, asked.Get("redirect_uri") != r.PostForm.Get("redirect_uri"),
		asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(challenge[:]):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"CANARY-description"}`))
	default:
		reply(w, map[string]any{"access_token": "CANARY-access", "token_type": "Bearer", "id_token": p.idToken(asked.Get("nonce"))})
	}
}

func (p *idp) idToken(nonce string) string {
	claims := map[string]any{
		"iss": p.URL, "sub": "248289761001", "aud": "bifrost", "nonce": nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"email": "alice@example.com", "email_verified": true, "groups": []string{"staff", "bifrost-operators"},
	}
	for name, value := range p.claims {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	if p.sign != nil {
		return p.sign(claims)
	}
	return p.signed(jose.ES256, p.key, claims)
}

func (p *idp) signed(alg jose.SignatureAlgorithm, key any, claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		panic(err)
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	jws, err := signer.Sign(text)
	if err != nil {
		panic(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return token
}

// newSSOSite returns a site where alice@example.com may sign in at p, and the operators of newSite by token.
func newSSOSite(t *testing.T, p *idp, change ...func(*console.Config)) *site {
	t.Helper()
	return newSite(t, append([]func(*console.Config){func(cfg *console.Config) {
		cfg.OIDC = &console.OIDC{
			Issuer: p.URL, ClientID: "bifrost", ClientSecret: func() string { return ssoSecret }, Scopes: []string{"openid", "email"},
			Contact: "Ada <ada@example.com>", Rules: []console.Rule{{Emails: []string{"alice@example.com"}}},
		}
	}}, change...)...)
}

// rules replaces those of a site.
func rules(list ...console.Rule) func(*console.Config) {
	return func(cfg *console.Config) { cfg.OIDC.Rules = list }
}

// startSSO presses the button and returns where it leads.
func (s *site) startSSO(fields ...string) string {
	s.t.Helper()
	w := s.post("/integrations/sign-in/sso", fields...)
	require.Equal(s.t, http.StatusSeeOther, w.Code, w.Body)
	return w.Header().Get("Location")
}

// callback comes back from the provider, as a browser does after a redirect by another site.
func (s *site) callback(q url.Values) *httptest.ResponseRecorder {
	r := s.request(http.MethodGet, "/integrations/sign-in/callback?"+q.Encode(), "")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	return s.do(r)
}

// sso goes through a whole sign-in and returns its last answer.
func (s *site) sso(p *idp, fields ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	code, q := p.authorize(s.startSSO(fields...))
	return s.callback(url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}})
}

// requireNobody asserts that no session was opened, and that nothing secret came out.
func (s *site) requireNobody(w *httptest.ResponseRecorder, status int) {
	s.t.Helper()
	require.Equal(s.t, status, w.Code, w.Body)
	require.NotContains(s.t, w.Body.String(), "CANARY")
	require.NotContains(s.t, s.log.String(), "CANARY")
	require.NotContains(s.t, s.cookies, "__Host-bifrost-session")
	require.Equal(s.t, "no-store", w.Header().Get("Cache-Control"))
	require.Contains(s.t, s.get("/integrations").Body.String(), signInForm)
}
