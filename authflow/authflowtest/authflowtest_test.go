package authflowtest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const callback = "https://bifrost.test/oauth/callback/Graph"

// served runs a test against a Provider over HTTP and against one in memory.
func served(t *testing.T, cfg authflowtest.Config, test func(t *testing.T, p *authflowtest.Provider, c *http.Client)) {
	t.Run("over HTTP", func(t *testing.T) {
		p := authflowtest.New(t, cfg)
		c := p.Client()
		c.Transport = &http.Transport{DisableKeepAlives: true}
		test(t, p, c)
	})
	t.Run("in memory", func(t *testing.T) {
		p := authflowtest.NewProvider(cfg)
		test(t, p, p.Client())
	})
}

func config(p *authflowtest.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.ClientID(), ClientSecret: p.ClientSecret(), RedirectURL: callback, Scopes: []string{"offline_access", "users"},
		Endpoint: oauth2.Endpoint{AuthURL: p.AuthorizationURL, TokenURL: p.TokenURL, AuthStyle: oauth2.AuthStyleInParams},
	}
}

// consent opens the authorization URL and returns what the browser brings to the callback, and the PKCE verifier.
func consent(t *testing.T, p *authflowtest.Provider) (url.Values, string) {
	t.Helper()
	verifier := oauth2.GenerateVerifier()
	to, err := p.Visit(config(p).AuthCodeURL("state-1", oauth2.S256ChallengeOption(verifier)))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(to.String(), callback+"?"), to)
	return to.Query(), verifier
}

func post(t *testing.T, c *http.Client, to string, form url.Values) (status int, members map[string]any) {
	t.Helper()
	res, err := c.PostForm(to, form)
	require.NoError(t, err)
	defer res.Body.Close()
	_ = json.NewDecoder(res.Body).Decode(&members) // some answers are no JSON
	return res.StatusCode, members
}

func refreshForm(p *authflowtest.Provider, token string) url.Values {
	return url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {token}, "client_id": {p.ClientID()}, "client_secret": {p.ClientSecret()},
	}
}

func TestCodeFlowThenAPI(t *testing.T) {
	served(t, authflowtest.Config{Issuer: "https://issuer.test"}, func(t *testing.T, p *authflowtest.Provider, c *http.Client) {
		back, verifier := consent(t, p)
		require.Equal(t, "state-1", back.Get("state"))
		require.Equal(t, "https://issuer.test", back.Get("iss"))

		ctx := oauthContext(t, c)
		token, err := config(p).Exchange(ctx, back.Get("code"), oauth2.VerifierOption(verifier))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(token.AccessToken, "CANARY-at-"))
		require.True(t, strings.HasPrefix(token.RefreshToken, "CANARY-rt-"))
		require.Equal(t, "offline_access users", token.Extra("scope"))

		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.APIURL+"/v1.0/users?$top=1", nil)
		token.SetAuthHeader(req)
		res, err := c.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		var who struct{ User, Path string }
		require.NoError(t, json.NewDecoder(res.Body).Decode(&who))
		require.Equal(t, "alice", who.User)
		require.Equal(t, "/api/v1.0/users", who.Path)

		seen := p.Sightings()
		require.Len(t, seen, 1)
		require.True(t, seen[0].OK)
		require.Equal(t, token.AccessToken, seen[0].Token.Value)
		require.Equal(t, 1, seen[0].Token.Generation)
	})
}

func TestAPIRefusesUnknownTokens(t *testing.T) {
	served(t, authflowtest.Config{}, func(t *testing.T, p *authflowtest.Provider, c *http.Client) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.APIURL+"/users", nil)
		req.Header.Set("Authorization", "Bearer nobody's")
		res, err := c.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusUnauthorized, res.StatusCode)
		require.False(t, p.Sightings()[0].OK)
	})
}

func TestCodeIsBoundToVerifierRedirectAndTenant(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	form := func(change func(url.Values)) url.Values {
		back, verifier := consent(t, p)
		f := url.Values{
			"grant_type": {"authorization_code"}, "code": {back.Get("code")}, "code_verifier": {verifier}, "redirect_uri": {callback},
			"client_id": {p.ClientID()}, "client_secret": {p.ClientSecret()},
		}
		change(f)
		return f
	}
	for name, change := range map[string]func(url.Values){
		"another verifier":       func(f url.Values) { f.Set("code_verifier", oauth2.GenerateVerifier()) },
		"no verifier":            func(f url.Values) { f.Del("code_verifier") },
		"another redirect URI":   func(f url.Values) { f.Set("redirect_uri", callback+"/") },
		"a repeated parameter":   func(f url.Values) { f.Add("code", "x") },
		"another client secret":  func(f url.Values) { f.Set("client_secret", "x") },
		"no client secret":       func(f url.Values) { f.Del("client_secret") },
		"an unknown code":        func(f url.Values) { f.Set("code", "x") },
		"an unknown grant_type":  func(f url.Values) { f.Set("grant_type", "password") },
		"the code as a refresh":  func(f url.Values) { f.Set("grant_type", "refresh_token") },
		"a refresh without code": func(f url.Values) { f.Del("code") },
	} {
		t.Run(name, func(t *testing.T) {
			status, members := post(t, p.Client(), p.TokenURL, form(change))
			require.GreaterOrEqual(t, status, 400)
			require.NotContains(t, members, "access_token")
		})
	}
	status, _ := post(t, p.Client(), p.BaseURL+"/contoso/token", form(func(url.Values) {}))
	require.Equal(t, 400, status, "another tenant's token endpoint")
	status, _ = post(t, p.Client(), p.TokenURL, form(func(url.Values) {}))
	require.Equal(t, 200, status)
}

func TestCodeReuseRevokesTheGrant(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	back, verifier := consent(t, p)
	token, err := config(p).Exchange(oauthContext(t, p.Client()), back.Get("code"), oauth2.VerifierOption(verifier))
	require.NoError(t, err)

	_, err = config(p).Exchange(oauthContext(t, p.Client()), back.Get("code"), oauth2.VerifierOption(verifier))
	require.Error(t, err)
	require.Len(t, p.Reuses(), 1)
	known, ok := p.Lookup(token.AccessToken)
	require.True(t, ok)
	require.False(t, known.Alive)
}

func TestAuthorizeRefuses(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{RedirectURIs: []string{callback}})
	good := config(p).AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))
	for name, bad := range map[string]string{
		"an unregistered redirect URI": strings.Replace(good, "Graph", "Other", 1),
		"an unknown client":            strings.Replace(good, "client_id=", "client_id=x", 1),
		"a repeated parameter":         good + "&state=t",
	} {
		_, err := p.Visit(bad)
		require.Error(t, err, name)
	}
	for name, bad := range map[string]string{
		"no PKCE":    strings.Replace(good, "code_challenge=", "x=", 1),
		"plain PKCE": strings.Replace(good, "S256", "plain", 1),
		"a token":    strings.Replace(good, "response_type=code", "response_type=token", 1),
	} {
		to, err := p.Visit(bad)
		require.NoError(t, err, name)
		require.NotEmpty(t, to.Query().Get("error"), name)
		require.Empty(t, to.Query().Get("code"), name)
	}
	_, err := p.Visit(good)
	require.NoError(t, err)
}

func TestConsentHookDecides(t *testing.T) {
	var p *authflowtest.Provider
	p = authflowtest.NewProvider(authflowtest.Config{Consent: func(w http.ResponseWriter, r *http.Request) (string, bool) {
		switch r.URL.Query().Get("login_hint") {
		case "bob":
			return "bob", true
		case "nobody":
			p.Deny(w, r, "access_denied")
		default:
			_, _ = w.Write([]byte("a sign-in page"))
		}
		return "", false
	}})
	start := config(p).AuthCodeURL("s", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))

	to, err := p.Visit(start + "&login_hint=bob")
	require.NoError(t, err)
	code, _ := p.Lookup(to.Query().Get("code"))
	require.Equal(t, "bob", code.User)
	to, err = p.Visit(start + "&login_hint=nobody")
	require.NoError(t, err)
	require.Equal(t, "access_denied", to.Query().Get("error"))
	_, err = p.Visit(start)
	require.ErrorContains(t, err, "a sign-in page")
}
