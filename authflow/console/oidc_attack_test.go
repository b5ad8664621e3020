package console_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
)

func TestACallbackThatIsNotOfThisBrowserIsRefused(t *testing.T) {
	for name, attack := range map[string]func(s *site, q url.Values){
		"a wrong state":             func(_ *site, q url.Values) { q.Set("state", "guessed") },
		"no state":                  func(_ *site, q url.Values) { q.Del("state") },
		"no code":                   func(_ *site, q url.Values) { q.Del("code") },
		"a code and an error":       func(_ *site, q url.Values) { q.Set("error", "access_denied") },
		"two codes":                 func(_ *site, q url.Values) { q.Add("code", "CANARY-second") },
		"two states":                func(_ *site, q url.Values) { q.Add("state", "second") },
		"a code with a line break":  func(_ *site, q url.Values) { q.Set("code", "CANARY\r\nSet-Cookie: a=b") },
		"a code of 20 kB":           func(_ *site, q url.Values) { q.Set("code", strings.Repeat("c", 20_000)) },
		"a query of 40 kB":          func(_ *site, q url.Values) { q.Set("session_state", strings.Repeat("c", 40_000)) },
		"a browser without cookies": func(s *site, _ url.Values) { clear(s.cookies) },
		"another browser's cookie": func(s *site, _ url.Values) {
			for name := range s.cookies {
				s.cookies[name] = "the-cookie-of-another-browser"
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			s := newSSOSite(t, p)
			code, asked := p.authorize(s.startSSO())
			kept := len(s.shelf.values)
			q := url.Values{"code": {code}, "state": {asked.Get("state")}}
			attack(s, q)
			s.requireNobody(s.callback(q), http.StatusBadRequest)
			require.Zero(t, p.exchanges.Load(), "no code is exchanged")
			require.Len(t, s.shelf.values, kept, "and nothing is spent")
			require.NotContains(t, s.log.String(), "sign_in", "strangers do not fill the log")
		})
	}
}

func TestAStateOfAnotherBrowserIsRefused(t *testing.T) {
	p := newIDP(t)
	victim := newSSOSite(t, p)
	attacker := newSSOSite(t, p, func(cfg *console.Config) { cfg.Sessions = victim.shelf })
	victim.startSSO()
	code, asked := p.authorize(attacker.startSSO())
	q := url.Values{"code": {code}, "state": {asked.Get("state")}}
	victim.requireNobody(victim.callback(q), http.StatusBadRequest)
	require.Equal(t, http.StatusSeeOther, attacker.callback(q).Code, "the one who began goes on")
}

func TestACallbackIsGoodOnce(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	code, asked := p.authorize(s.startSSO())
	jar := map[string]string{}
	for name, value := range s.cookies {
		jar[name] = value
	}
	q := url.Values{"code": {code}, "state": {asked.Get("state")}}
	require.Equal(t, http.StatusSeeOther, s.callback(q).Code)

	s.cookies = jar // of a copy of the browser that the thief has
	s.requireNobody(s.callback(q), http.StatusBadRequest)
	require.EqualValues(t, 1, p.exchanges.Load())
}

func TestTwentyCallbacksAtOnceExchangeOnce(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	replicas := []*site{s}
	for range 2 {
		replicas = append(replicas, newSSOSite(t, p, func(cfg *console.Config) { cfg.Sessions = s.shelf }))
	}
	code, asked := p.authorize(s.startSSO())
	q := url.Values{"code": {code}, "state": {asked.Get("state")}}
	var group sync.WaitGroup
	var through atomic.Int32
	for i := range 20 {
		copied := &site{t: t, handler: replicas[i%3].handler, origin: s.origin, cookies: map[string]string{}}
		for name, value := range s.cookies {
			copied.cookies[name] = value
		}
		group.Go(func() {
			if copied.callback(q).Code == http.StatusSeeOther {
				through.Add(1)
			}
		})
	}
	group.Wait()
	require.EqualValues(t, 1, through.Load())
	require.EqualValues(t, 1, p.exchanges.Load())
}

// Each of these comes with the right state, in the right browser.
func TestAnIDTokenThatIsNotOursIsRefused(t *testing.T) {
	now := time.Now()
	for name, attack := range map[string]func(p *idp){
		"a nonce of another sign-in": func(p *idp) { p.claims["nonce"] = "another" },
		"no nonce":                   func(p *idp) { p.claims["nonce"] = nil },
		"another audience":           func(p *idp) { p.claims["aud"] = "another-client" },
		"no audience":                func(p *idp) { p.claims["aud"] = nil },
		"another issuer":             func(p *idp) { p.claims["iss"] = "https://evil.example" },
		"an issuer with a slash":     func(p *idp) { p.claims["iss"] = p.URL + "/" },
		"several audiences without an authorized party": func(p *idp) { p.claims["aud"] = []string{"bifrost", "other"} },
		"another authorized party": func(p *idp) {
			p.claims["aud"], p.claims["azp"] = []string{"bifrost", "other"}, "other"
		},
		"another authorized party of our audience": func(p *idp) { p.claims["azp"] = "other" },
		"expired":        func(p *idp) { p.claims["exp"] = now.Add(-time.Second).Unix() },
		"no expiry":      func(p *idp) { p.claims["exp"] = nil },
		"not yet valid":  func(p *idp) { p.claims["nbf"] = now.Add(time.Hour).Unix() },
		"no subject":     func(p *idp) { p.claims["sub"] = nil },
		"an odd subject": func(p *idp) { p.claims["sub"] = "alice\n" },
		"alg none": func(p *idp) {
			p.sign = func(claims map[string]any) string {
				text, _ := json.Marshal(claims)
				b64 := base64.RawURLEncoding.EncodeToString
				return b64([]byte(`{"alg":"none"}`)) + "." + b64(text) + "."
			}
		},
		"HS256 with the client secret": func(p *idp) {
			p.sign = func(claims map[string]any) string { return p.signed(jose.HS256, []byte(ssoSecret+ssoSecret), claims) }
		},
		"HS256 with the public key": func(p *idp) {
			public, _ := p.key.PublicKey.Bytes()
			p.sign = func(claims map[string]any) string { return p.signed(jose.HS256, public, claims) }
		},
		"another's key": func(p *idp) {
			key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			p.sign = func(claims map[string]any) string { return p.signed(jose.ES256, key, claims) }
		},
		"changed claims": func(p *idp) {
			p.sign = func(claims map[string]any) string {
				parts := strings.Split(p.signed(jose.ES256, p.key, claims), ".")
				claims["sub"] = "somebody-else"
				text, _ := json.Marshal(claims)
				parts[1] = base64.RawURLEncoding.EncodeToString(text)
				return strings.Join(parts, ".")
			}
		},
		"no ID token": func(p *idp) {
			p.token = func(w http.ResponseWriter, _ url.Values) bool {
				reply(w, map[string]any{"access_token": "CANARY-access", "token_type": "Bearer"})
				return true
			}
		},
		"a page": func(p *idp) {
			p.token = func(w http.ResponseWriter, _ url.Values) bool {
				_, _ = w.Write([]byte("<html>CANARY-page"))
				return true
			}
		},
		"an endless answer": func(p *idp) {
			p.token = func(w http.ResponseWriter, _ url.Values) bool {
				_, _ = w.Write([]byte(`{"id_token":"` + strings.Repeat("CANARY", 1<<18) + `"}`))
				return true
			}
		},
		"a redirect": func(p *idp) {
			p.token = func(w http.ResponseWriter, _ url.Values) bool {
				w.Header().Set("Location", p.URL+"/keys")
				w.WriteHeader(http.StatusTemporaryRedirect)
				return true
			}
		},
		"userinfo of somebody else": func(p *idp) {
			p.claims["email"], p.userinfo = nil, map[string]any{"sub": "other", "email": "alice@example.com", "email_verified": true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			attack(p)
			s := newSSOSite(t, p)
			s.requireNobody(s.sso(p), http.StatusBadGateway)
			require.EqualValues(t, 1, p.exchanges.Load())
			require.Equal(t, 1, strings.Count(s.log.String(), `"action":"sign_in_failed"`))
			require.Contains(t, s.log.String(), `"outcome":"operator_unauthenticated"`)
		})
	}
}

func TestAnIDTokenForSeveralIsTakenFromItsOwnParty(t *testing.T) {
	p := newIDP(t)
	p.claims["aud"], p.claims["azp"] = []string{"other", "bifrost"}, "bifrost"
	require.Equal(t, http.StatusSeeOther, newSSOSite(t, p).sso(p).Code)
}

func TestAnAnswerOfAnotherIssuerIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		iss   string
		sends bool
	}{
		"another's name":           {"https://evil.example", false},
		"ours with a slash":        {"+/", false},
		"none, though it promises": {"", true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			p.metadata["authorization_response_iss_parameter_supported"] = tc.sends
			s := newSSOSite(t, p)
			code, asked := p.authorize(s.startSSO())
			q := url.Values{"code": {code}, "state": {asked.Get("state")}}
			if tc.iss != "" {
				q.Set("iss", strings.ReplaceAll(tc.iss, "+", p.URL))
			}
			s.requireNobody(s.callback(q), http.StatusBadRequest)
			require.Zero(t, p.exchanges.Load(), "the code goes to nobody")
		})
	}
}

func TestACodeForAnotherClientOrVerifierIsRefused(t *testing.T) {
	for name, attack := range map[string]func(q url.Values){
		"another client's":  func(q url.Values) { q.Set("client_id", "other") },
		"another sign-in's": func(q url.Values) { q.Set("code_challenge", "another") },
		"another address's": func(q url.Values) { q.Set("redirect_uri", "https://evil.example") },
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			s := newSSOSite(t, p)
			code, asked := p.authorize(s.startSSO())
			attack(p.pending[code])
			s.requireNobody(s.callback(url.Values{"code": {code}, "state": {asked.Get("state")}}), http.StatusBadGateway)
			require.Contains(t, s.log.String(), "HTTP 400, invalid_grant")
			require.EqualValues(t, 1, p.exchanges.Load())
		})
	}
}

func TestNothingOfAnErrorIsReflected(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	for _, code := range []string{"access_denied", "server_error", "CANARY-error<script>"} {
		_, asked := p.authorize(s.startSSO())
		w := s.callback(url.Values{"error": {code}, "error_description": {"CANARY-<script>"}, "error_uri": {"https://evil.example"}, "state": {asked.Get("state")}})
		s.requireNobody(w, http.StatusForbidden)
		require.NotContains(t, w.Body.String(), "evil")
	}
	require.Zero(t, p.exchanges.Load())
	require.Equal(t, 3, strings.Count(s.log.String(), `"action":"sign_in_failed"`))
}

func TestASignInLeadsBackToItsViewAndNowhereElse(t *testing.T) {
	for view, want := range map[string]string{
		"":                                "/integrations",
		"q=acme&show=attention&page=2":    "/integrations?page=2&q=acme&show=attention",
		"//evil.example":                  "/integrations",
		"https://evil.example/":           "/integrations",
		`/\evil.example`:                  "/integrations",
		"integration=//evil.example":      "/integrations?integration=%2F%2Fevil.example",
		"q=a&next=https://evil.example":   "/integrations?q=a",
		"%0d%0aLocation:https://evil":     "/integrations",
		"q=%0d%0aSet-Cookie:%20evil=true": "/integrations?q=%0D%0ASet-Cookie%3A+evil%3Dtrue",
		"javascript:alert(1)":             "/integrations",
	} {
		p := newIDP(t)
		s := newSSOSite(t, p)
		code, asked := p.authorize(s.startSSO("view", view))
		q := url.Values{"code": {code}, "state": {asked.Get("state")}, "view": {"q=evil"}, "next": {"https://evil.example"}}
		w := s.callback(q)
		require.Equal(t, http.StatusSeeOther, w.Code)
		require.Equal(t, want, w.Header().Get("Location"), view)
	}
}

func TestASignInAtTheProviderNeverKeepsTheBrowsersOwnID(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	s.cookies["__Host-bifrost-session"] = "chosen-by-someone-else"
	require.Equal(t, http.StatusSeeOther, s.sso(p).Code)
	first := s.cookies["__Host-bifrost-session"]
	require.NotEqual(t, "chosen-by-someone-else", first)
	require.Equal(t, http.StatusSeeOther, s.sso(p).Code)
	require.NotEqual(t, first, s.cookies["__Host-bifrost-session"], "each sign-in has a session of its own")
}

func TestASignInCannotBeBegunFromAnotherSite(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	for _, site := range []string{"cross-site", "same-site"} {
		r := s.form("/integrations/sign-in/sso")
		r.Header.Set("Sec-Fetch-Site", site)
		r.Header.Set("Origin", "https://evil.example")
		require.Equal(t, http.StatusForbidden, s.do(r).Code)
	}
	require.Equal(t, http.StatusMethodNotAllowed, s.get("/integrations/sign-in/sso").Code, "nor by a link")
	require.Equal(t, http.StatusMethodNotAllowed, s.post("/integrations/sign-in/callback", "code", "c", "state", "s").Code)
	require.Empty(t, s.shelf.values)
}

func TestStrangersCannotFillTheShelf(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p)
	begun := 0
	for range 300 {
		s.cookies = map[string]string{}
		if s.post("/integrations/sign-in/sso").Code == http.StatusSeeOther {
			begun++
		}
	}
	require.Less(t, begun, 200)
	require.GreaterOrEqual(t, begun, 100)
	w := s.post("/integrations/sign-in/sso")
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	s.signIn() // by token, as ever
}
