package authflowtest_test

import (
	"context"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func oauthContext(t *testing.T, c *http.Client) context.Context {
	return context.WithValue(t.Context(), oauth2.HTTPClient, c)
}

func refresh(t *testing.T, p *authflowtest.Provider, token string) (status int, access, refresh string) {
	t.Helper()
	status, members := post(t, p.Client(), p.TokenURL, refreshForm(p, token))
	access, _ = members["access_token"].(string)
	refresh, _ = members["refresh_token"].(string)
	return status, access, refresh
}

func TestReusableTokensStayUsable(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{Refresh: authflowtest.Reusable})
	first := p.Issue("alice")
	for range 3 {
		status, access, fresh := refresh(t, p, first.Refresh)
		require.Equal(t, 200, status)
		require.NotEqual(t, first.Access, access)
		require.NotEqual(t, first.Refresh, fresh)
	}
	require.Equal(t, map[string]int{first.Refresh: 3}, p.Refreshes())
	require.Empty(t, p.Reuses())
}

func TestOneTimeReuseRevokesTheFamily(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{Refresh: authflowtest.OneTime})
	first, other := p.Issue("alice"), p.Issue("alice")
	_, access, second := refresh(t, p, first.Refresh)

	status, _, _ := refresh(t, p, first.Refresh)
	require.Equal(t, 400, status)
	require.Len(t, p.Reuses(), 1)
	require.Equal(t, first.Refresh, p.Reuses()[0].Token.Value)
	require.False(t, p.GrantAlive(first.Grant))
	for _, value := range []string{first.Access, access, second} {
		token, ok := p.Lookup(value)
		require.True(t, ok)
		require.False(t, token.Alive, token)
	}
	status, _, _ = refresh(t, p, second)
	require.Equal(t, 400, status, "the newest token died with the family")
	require.Len(t, p.Reuses(), 1, "and that was no reuse")
	require.True(t, p.GrantAlive(other.Grant), "another grant of the same user lives")
}

func TestRotatingTokensHaveAGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authflowtest.InMemory(t, authflowtest.Config{Refresh: authflowtest.Rotating, Grace: 10 * time.Second})
		first := p.Issue("alice")
		status, _, _ := refresh(t, p, first.Refresh)
		require.Equal(t, 200, status)
		time.Sleep(9 * time.Second)
		status, _, _ = refresh(t, p, first.Refresh)
		require.Equal(t, 200, status)
		time.Sleep(time.Second)
		status, _, _ = refresh(t, p, first.Refresh)
		require.Equal(t, 400, status)
		require.Len(t, p.Reuses(), 1)
	})
}

func TestAccessTokensExpireAndDieOnRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := authflowtest.InMemory(t, authflowtest.Config{Lifetime: 5 * time.Second, AccessDies: true})
		first := p.Issue("alice")
		alive := func(value string) bool { token, _ := p.Lookup(value); return token.Alive }
		require.True(t, alive(first.Access))
		_, second, _ := refresh(t, p, first.Refresh)
		require.False(t, alive(first.Access))
		require.True(t, alive(second))
		time.Sleep(5 * time.Second)
		require.False(t, alive(second))
	})
}

func TestLifetimeCanBeLeftOut(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{Lifetime: -1})
	_, members := post(t, p.Client(), p.TokenURL, refreshForm(p, p.Issue("alice").Refresh))
	require.NotContains(t, members, "expires_in")
	require.Contains(t, members, "access_token")
}

func TestClientCredentials(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	status, members := post(t, p.Client(), p.TokenURL, url.Values{
		"grant_type": {"client_credentials"}, "scope": {"a b"}, "client_id": {p.ClientID()}, "client_secret": {p.ClientSecret()},
	})
	require.Equal(t, 200, status)
	require.NotContains(t, members, "refresh_token", "RFC 6749 section 4.4.3")
	token, _ := p.Lookup(members["access_token"].(string))
	require.Equal(t, "client:"+p.ClientID(), token.User)
	require.Equal(t, []string{"a", "b"}, token.Scopes)
}

func TestClientAuthIsTheConfiguredMethodAlone(t *testing.T) {
	for _, method := range []string{"post", "basic", "none"} {
		p := authflowtest.NewProvider(authflowtest.Config{ClientAuth: method, ClientSecret: "CANARY +%:secret"})
		accepted := 0
		for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
			for _, secret := range []string{"", "wrong", p.ClientSecret()} {
				cfg := config(p)
				cfg.ClientSecret, cfg.Endpoint.AuthStyle = secret, style
				stale := &oauth2.Token{RefreshToken: p.Issue("alice").Refresh}
				if _, err := cfg.TokenSource(oauthContext(t, p.Client()), stale).Token(); err == nil {
					accepted++
					require.Equal(t, method == "basic", style == oauth2.AuthStyleInHeader)
					require.Equal(t, method == "none", secret == "")
				}
			}
		}
		require.Equal(t, 1, accepted, method)
	}
}

func TestRevocation(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	first := p.Issue("alice")
	form := url.Values{"token": {first.Access}, "client_id": {p.ClientID()}, "client_secret": {p.ClientSecret()}}
	status, _ := post(t, p.Client(), p.RevocationURL, form)
	require.Equal(t, 200, status)
	require.True(t, p.GrantAlive(first.Grant), "an access token alone")

	form.Set("token", first.Refresh)
	status, _ = post(t, p.Client(), p.RevocationURL, form)
	require.Equal(t, 200, status)
	require.False(t, p.GrantAlive(first.Grant))
	require.Len(t, p.Revocations(), 2)

	form.Set("client_secret", "wrong")
	status, _ = post(t, p.Client(), p.RevocationURL, form)
	require.Equal(t, 401, status)
}

func TestRevokeUserEndsTheirGrants(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	alice, bob := p.Issue("alice"), p.Issue("bob")
	p.RevokeUser("alice")
	require.False(t, p.GrantAlive(alice.Grant))
	require.True(t, p.GrantAlive(bob.Grant))
	status, _, _ := refresh(t, p, alice.Refresh)
	require.Equal(t, 400, status)
	require.Empty(t, p.Reuses())
}
