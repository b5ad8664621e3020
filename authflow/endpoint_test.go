package authflow

import (
	"context"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// integrationAt returns an integration and endpoints that fit the provider.
func integrationAt(p *authflowtest.Provider) (*Integration, Endpoints) {
	return &Integration{
			Name: "Graph", ClientID: p.ClientID(), ClientSecret: p.ClientSecret, ClientAuth: AuthPost, Scopes: []string{"users"},
		}, Endpoints{
			AuthorizationURL: p.AuthorizationURL, TokenURL: p.TokenURL, RevocationURL: p.RevocationURL,
		}
}

const testRedirectURI = "https://bifrost.test/oauth/callback/Graph"

// consented returns a code and its PKCE verifier.
func consented(t *testing.T, p *authflowtest.Provider) (code, verifier string) {
	t.Helper()
	verifier = oauth2.GenerateVerifier()
	cfg := oauth2.Config{
		ClientID: p.ClientID(), RedirectURL: testRedirectURI, Scopes: []string{"users"}, Endpoint: oauth2.Endpoint{AuthURL: p.AuthorizationURL},
	}
	to, err := p.Visit(cfg.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)))
	require.NoError(t, err)
	return to.Query().Get("code"), verifier
}

// everyPost calls each method that POSTs to the token endpoint, with what a provider accepts.
var everyPost = map[string]func(ctx context.Context, t *testing.T, te *tokenEndpoint, p *authflowtest.Provider, in *Integration, ep Endpoints) reply{
	"exchange": func(ctx context.Context, t *testing.T, te *tokenEndpoint, p *authflowtest.Provider, in *Integration, ep Endpoints) reply {
		code, verifier := consented(t, p)
		return te.exchange(ctx, in, ep, code, consent{Verifier: verifier, RedirectURI: testRedirectURI})
	},
	"refresh": func(ctx context.Context, _ *testing.T, te *tokenEndpoint, p *authflowtest.Provider, in *Integration, ep Endpoints) reply {
		return te.refresh(ctx, in, ep, p.Issue("alice", "users").Refresh)
	},
	"mint": func(ctx context.Context, _ *testing.T, te *tokenEndpoint, _ *authflowtest.Provider, in *Integration, ep Endpoints) reply {
		return te.mint(ctx, in, ep)
	},
}

func TestEachMethodObtainsATokenWithOnePOST(t *testing.T) {
	for name, post := range everyPost {
		for _, auth := range []ClientAuth{AuthPost, AuthBasic, AuthNone} {
			t.Run(name+" "+string(auth), func(t *testing.T) {
				p := authflowtest.New(t, authflowtest.Config{ClientAuth: string(auth), ClientSecret: "CANARY +%:&=/secret"})
				in, ep := integrationAt(p)
				in.ClientAuth = auth
				te := newTokenEndpoint(nil)

				r := post(t.Context(), t, te, p, in, ep)
				require.Equal(t, granted, r.class, r.text)
				require.Empty(t, r.code)
				require.Empty(t, r.text)
				require.Equal(t, []string{"users"}, r.scopes)
				require.Equal(t, "Bearer", r.token.Type)
				known, ok := p.Lookup(r.token.Access)
				require.True(t, ok)
				require.True(t, known.Alive)
				require.WithinDuration(t, known.Expires, r.token.Expiry, time.Second)
				require.Equal(t, 1, p.Count(""))
				require.Equal(t, "application/json", p.Posts()[0].Header.Get("Accept"))
			})
		}
	}
}

func TestTokenParamsGoWithEveryPOSTAndReplaceNothing(t *testing.T) {
	for name, post := range everyPost {
		t.Run(name, func(t *testing.T) {
			p := authflowtest.NewProvider(authflowtest.Config{})
			in, ep := integrationAt(p)
			ep.TokenURL += "?kept=1"
			ep.TokenParams = map[string]string{"resource": "https://api.test/?a=b&c", "client_id": "x", "grant_type": "x"}
			r := post(t.Context(), t, newTokenEndpoint(p.Transport()), p, in, ep)
			require.Equal(t, granted, r.class, r.text)
			form := p.Posts()[0].Form
			require.Equal(t, []string{"https://api.test/?a=b&c"}, form["resource"])
			require.Equal(t, []string{p.ClientID()}, form["client_id"])
			require.Equal(t, url.Values{"kept": {"1"}}, p.Posts()[0].Query)
		})
	}
}

func TestAudienceAndScopeGoWithClientCredentialsAlone(t *testing.T) {
	for name, post := range everyPost {
		p := authflowtest.NewProvider(authflowtest.Config{})
		in, ep := integrationAt(p)
		in.Audience = "https://api.test"
		require.Equal(t, granted, post(t.Context(), t, newTokenEndpoint(p.Transport()), p, in, ep).class)
		require.Equal(t, name == "mint", p.Posts()[0].Form.Has("audience"), name)
		require.Equal(t, name == "mint", p.Posts()[0].Form.Has("scope"), name)
	}
}

func TestAnEmptyVerifierIsNotSent(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{NoPKCE: true})
	in, ep := integrationAt(p)
	newTokenEndpoint(p.Transport()).exchange(t.Context(), in, ep, "code", consent{RedirectURI: testRedirectURI})
	require.False(t, p.Posts()[0].Form.Has("code_verifier"))
}

func TestRevoke(t *testing.T) {
	for _, auth := range []ClientAuth{AuthPost, AuthBasic, AuthNone} {
		p := authflowtest.New(t, authflowtest.Config{ClientAuth: string(auth), ClientSecret: "CANARY +%:secret"})
		in, ep := integrationAt(p)
		in.ClientAuth = auth
		te, first := newTokenEndpoint(nil), p.Issue("alice")
		require.NoError(t, te.revoke(t.Context(), in, ep, first.Refresh, "refresh_token"))
		require.False(t, p.GrantAlive(first.Grant))
		require.Len(t, p.Revocations(), 1)
		require.Equal(t, "refresh_token", p.Revocations()[0].Form.Get("token_type_hint"))

		require.NoError(t, te.revoke(t.Context(), in, ep, "CANARY-unknown", "access_token"), "unknown tokens are no error")
		p.SetClientSecret("CANARY-changed")
		in.ClientSecret = func() string { return "CANARY-wrong" }
		if auth != AuthNone {
			require.EqualError(t, te.revoke(t.Context(), in, ep, "CANARY-t", "access_token"), "authflow: revoke: the endpoint answered HTTP 401")
		}
		ep.RevocationURL = p.BaseURL + "/elsewhere"
		require.EqualError(t, te.revoke(t.Context(), in, ep, "CANARY-t", "access_token"), "authflow: revoke: the endpoint answered HTTP 404")
		ep.RevocationURL = ""
		require.NoError(t, te.revoke(t.Context(), in, ep, first.Refresh, "refresh_token"), "nothing to do")
	}
}

func TestRevokeOfAnUnreachableEndpoint(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	in, ep := integrationAt(p)
	p.SetDown(true)
	err := newTokenEndpoint(p.Transport()).revoke(t.Context(), in, ep, "CANARY-t", "access_token")
	require.EqualError(t, err, "authflow: revoke: the endpoint refuses connections")
	ep.RevocationURL = "https://idp.test/%zz?CANARY"
	err = newTokenEndpoint(http.DefaultTransport).revoke(t.Context(), in, ep, "CANARY-t", "access_token")
	require.EqualError(t, err, "authflow: revoke: the revocation URL is not valid")
}
