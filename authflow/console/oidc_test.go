package console_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func setCookie(w *httptest.ResponseRecorder, prefix string) *http.Cookie {
	for _, cookie := range w.Result().Cookies() {
		if strings.HasPrefix(cookie.Name, prefix) {
			return cookie
		}
	}
	return nil
}

func TestTheSignInFormOffersTheWaysThatThereAre(t *testing.T) {
	p := newIDP(t)
	page := newSite(t).get("/integrations").Body.String()
	require.Contains(t, page, "Operator token")
	require.NotContains(t, page, "SSO")

	w := newSSOSite(t, p).get("/integrations")
	require.Contains(t, w.Body.String(), "Operator token")
	require.Contains(t, w.Body.String(), "Sign in with SSO")
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "form-action 'self' https://bifrost.example.com "+p.URL+" https:",
		"browsers apply form-action to the redirect")

	only := newSSOSite(t, p, func(cfg *console.Config) { cfg.Operators = nil })
	page = only.get("/integrations").Body.String()
	require.NotContains(t, page, "Operator token")
	require.NotContains(t, page, "Open to everyone", "a provider alone ends the open mode")
	require.Contains(t, page, "Sign in with SSO")
	require.Equal(t, http.StatusUnauthorized, only.post("/integrations/sign-in", "token", "").Code)
	require.Equal(t, http.StatusUnauthorized, only.call("", http.MethodGet, "/integrations", "").Code)
}

func TestTheAuthorizationRequest(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	w := s.post("/integrations/sign-in/sso")
	_, q := p.authorize(w.Header().Get("Location"))
	for name, want := range map[string]string{
		"response_type": "code", "client_id": "bifrost", "scope": "openid email", "code_challenge_method": "S256",
		"redirect_uri": "https://bifrost.example.com/integrations/sign-in/callback",
	} {
		require.Equal(t, []string{want}, q[name])
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		require.Len(t, q[name], 1)
		require.GreaterOrEqual(t, len(q.Get(name)), 43)
	}
	require.NotContains(t, q, "prompt")

	cookie := setCookie(w, "__Host-bifrost-sign-in-")
	require.NotNil(t, cookie)
	require.True(t, cookie.Secure)
	require.True(t, cookie.HttpOnly)
	require.Equal(t, "/", cookie.Path)
	require.Equal(t, http.SameSiteLaxMode, cookie.SameSite)
	require.Equal(t, 600, cookie.MaxAge)

	_, other := p.authorize(s.startSSO("again", "1"))
	require.Equal(t, "login", other.Get("prompt"))
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		require.NotEqual(t, q.Get(name), other.Get(name))
	}
}

func TestSigningInAtTheProvider(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	w := s.sso(p)
	require.Equal(t, http.StatusSeeOther, w.Code, s.log.String())
	cookie := setCookie(w, "__Host-bifrost-session")
	require.Equal(t, 8*60*60, cookie.MaxAge)
	require.True(t, cookie.HttpOnly)
	require.Negative(t, setCookie(w, "__Host-bifrost-sign-in-").MaxAge)
	require.Contains(t, s.get("/integrations").Body.String(), "Signed in as <strong>alice@example.com</strong>")
	require.Contains(t, s.log.String(), `"action":"sign_in","operator":"alice@example.com","outcome":"ok"`)
	require.NotContains(t, s.log.String(), "CANARY")

	by := ""
	s.broker.disconnect = func(_ tokenstore.Slot, who string) error { by = who; return nil }
	require.Equal(t, http.StatusSeeOther, s.post("/integrations/Microsoft_Graph/disconnect", "org", "acme").Code)
	require.Equal(t, "alice@example.com", by)

	kept := s.cookies["__Host-bifrost-session"]
	require.Equal(t, http.StatusSeeOther, s.post("/integrations/sign-out").Code)
	s.cookies["__Host-bifrost-session"] = kept
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
	require.Contains(t, s.log.String(), `"action":"sign_out","operator":"alice@example.com"`)
}

// A browser that signs in in many tabs keeps a few cookies only, and the last tabs work.
func TestSignInsInSeveralTabs(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	var asked []string
	for range 8 {
		asked = append(asked, s.startSSO())
	}
	flows := 0
	for name := range s.cookies {
		if strings.HasPrefix(name, "__Host-bifrost-sign-in-") {
			flows++
		}
	}
	require.LessOrEqual(t, flows, 5)
	code, q := p.authorize(asked[7])
	require.Equal(t, http.StatusSeeOther, s.callback(url.Values{"code": {code}, "state": {q.Get("state")}}).Code)
}

// On the store that keeps them in production, any replica serves any step.
func TestASignInIsKeptSealedForEveryReplica(t *testing.T) {
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "k", Bytes: bytes.Repeat([]byte{7}, 32)})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "bifrost.db")
	store, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: keys})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	p := newIDP(t)
	keep := func(cfg *console.Config) { cfg.Sessions = store }
	one, two, three := newSSOSite(t, p, keep), newSSOSite(t, p, keep), newSSOSite(t, p, keep)

	code, q := p.authorize(one.startSSO())
	two.cookies = one.cookies
	require.Equal(t, http.StatusSeeOther, two.callback(url.Values{"code": {code}, "state": {q.Get("state")}}).Code)
	three.cookies = two.cookies
	require.Contains(t, three.get("/integrations").Body.String(), "alice@example.com")

	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(kept), "alice@example.com")
	require.NotContains(t, string(kept), q.Get("state"))
	require.NotContains(t, string(kept), q.Get("nonce"))
}

func TestTheConfigurationInForceDecidesAboutASession(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	require.Equal(t, http.StatusSeeOther, s.sso(p).Code)
	for name, tc := range map[string]struct {
		change func(*console.Config)
		in     bool
	}{
		"nothing changed":        {func(*console.Config) {}, true},
		"a renewed secret":       {func(cfg *console.Config) { cfg.OIDC.ClientSecret = func() string { return "CANARY-renewed" } }, true},
		"a rule by a group":      {rules(console.Rule{Groups: []string{"staff"}}), true},
		"a rule for others":      {rules(console.Rule{Emails: []string{"bob@example.com"}}), false},
		"another client":         {func(cfg *console.Config) { cfg.OIDC.ClientID = "other" }, false},
		"another issuer":         {func(cfg *console.Config) { cfg.OIDC.Issuer = "https://login.example.com" }, false},
		"no provider any longer": {func(cfg *console.Config) { cfg.OIDC = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			reloaded := newSSOSite(t, p, tc.change, func(cfg *console.Config) { cfg.Sessions = s.shelf })
			reloaded.cookies = s.cookies
			require.Equal(t, tc.in, strings.Contains(reloaded.get("/integrations").Body.String(), "Signed in as"))
			if !tc.in {
				require.Equal(t, http.StatusUnauthorized, reloaded.post("/integrations/Microsoft_Graph/disconnect", "org", "acme").Code)
			}
		})
	}
	viewers := newSSOSite(t, p, func(cfg *console.Config) {
		cfg.Sessions = s.shelf
		cfg.OIDC.Rules[0].Rights = console.Rights{ReadOnly: true, Integrations: []string{"Private"}}
	})
	viewers.cookies = s.cookies
	require.NotContains(t, viewers.get("/integrations").Body.String(), "Microsoft_Graph")
	require.Equal(t, http.StatusForbidden, viewers.post("/integrations/Private/disconnect", "org", "acme").Code)
}

func TestASignInBegunWithAnotherClientEnds(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	code, q := p.authorize(s.startSSO())
	reloaded := newSSOSite(t, p, func(cfg *console.Config) { cfg.Sessions, cfg.OIDC.ClientID = s.shelf, "other" })
	reloaded.cookies = s.cookies
	reloaded.requireNobody(reloaded.callback(url.Values{"code": {code}, "state": {q.Get("state")}}), http.StatusBadRequest)
}

// A session of a token and one of a provider cannot stand for each other.
func TestASessionByTokenOutlivesTheProvider(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p).signIn()
	p.down.Store(true)
	require.Contains(t, s.get("/integrations").Body.String(), "Signed in as <strong>ops</strong>")
}

func TestAProviderThatIsDown(t *testing.T) {
	p := newIDP(t)
	p.down.Store(true)
	s := newSSOSite(t, p) // starts all the same
	for range 10 {
		w := s.get("/integrations?q=acme")
		require.Equal(t, http.StatusOK, w.Code)
		require.Contains(t, w.Body.String(), "Single sign-on is unreachable.")
		require.Contains(t, w.Body.String(), `href="/integrations?q=acme"`)
		require.NotContains(t, w.Body.String(), "Sign in with SSO")
		require.NotContains(t, w.Body.String(), "CANARY")
	}
	w := s.post("/integrations/sign-in/sso")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	require.NotContains(t, s.log.String(), "CANARY")
	require.EqualValues(t, 1, p.asked.Load(), "it is not asked by every visitor")
	s.signIn() // by token
	require.Contains(t, s.get("/integrations").Body.String(), "Microsoft_Graph")
	require.Equal(t, http.StatusSeeOther, s.post("/integrations/sign-out").Code)

	p.down.Store(false)
	console.ProviderAgain(s.handler)
	require.Contains(t, s.get("/integrations").Body.String(), "Sign in with SSO")
	require.Equal(t, http.StatusSeeOther, s.sso(p).Code)

	p.down.Store(true) // what was found is used on
	console.ProviderAgain(s.handler)
	require.Equal(t, http.StatusSeeOther, s.post("/integrations/sign-out").Code)
	require.Contains(t, s.get("/integrations").Body.String(), "Sign in with SSO")
}

func TestADiscoveryDocumentThatIsNotUsedSaysWhy(t *testing.T) {
	for name, tc := range map[string]struct {
		key, value, want string
	}{
		"another issuer's":         {"issuer", "https://evil.example", "another issuer than auth.oidc.issuer"},
		"a token endpoint by http": {"token_endpoint", "http://192.0.2.1/token", "not https"},
		"a page that is a script":  {"authorization_endpoint", "javascript:alert(1)", "not https"},
		"no keys":                  {"jwks_uri", "", "misses one"},
		"an endless document":      {"padding", strings.Repeat("x", 2<<20), "no discovery document"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			p.metadata[tc.key] = tc.value
			s := newSSOSite(t, p)
			require.Contains(t, s.get("/integrations").Body.String(), "Single sign-on is unreachable.")
			require.Contains(t, s.log.String(), tc.want)
			require.NotContains(t, s.get("/integrations").Header().Get("Content-Security-Policy"), "evil")
		})
	}
}

func TestAProviderThatTakesTheSecretInTheBodyOnly(t *testing.T) {
	p := newIDP(t)
	p.metadata["token_endpoint_auth_methods_supported"] = []string{"client_secret_post"}
	s := newSSOSite(t, p)
	p.token = func(w http.ResponseWriter, form url.Values) bool {
		require.Equal(t, ssoSecret, form.Get("client_secret"))
		w.WriteHeader(http.StatusBadRequest)
		return true
	}
	require.Equal(t, http.StatusBadGateway, s.sso(p).Code)
	require.EqualValues(t, 1, p.exchanges.Load(), "never probed for")
}

func TestNewRefusesAProviderThatCannotWork(t *testing.T) {
	for name, change := range map[string]func(*console.OIDC){
		"no issuer":         func(o *console.OIDC) { o.Issuer = "" },
		"no client":         func(o *console.OIDC) { o.ClientID = "" },
		"no secret":         func(o *console.OIDC) { o.ClientSecret = nil },
		"no openid":         func(o *console.OIDC) { o.Scopes = []string{"email"} },
		"no rules":          func(o *console.OIDC) { o.Rules = nil },
		"a rule for nobody": func(o *console.OIDC) { o.Rules = []console.Rule{{}} },
	} {
		o := console.OIDC{Issuer: "https://login.example.com", ClientID: "bifrost", ClientSecret: func() string { return ssoSecret },
			Scopes: []string{"openid"}, Rules: []console.Rule{{Groups: []string{"staff"}}}}
		cfg := console.Config{Broker: sampleBroker(), Sessions: &shelf{}, PublicURL: "https://bifrost.example.com", OIDC: &o}
		_, err := console.New(cfg)
		require.NoError(t, err)
		change(&o)
		_, err = console.New(cfg)
		require.Error(t, err, name)
		cfg.OIDC.Issuer = "https://login.example.com"
		cfg.Sessions = nil
		_, err = console.New(cfg)
		require.Error(t, err, "nowhere to keep sessions")
	}
}
