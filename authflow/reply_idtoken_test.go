package authflow

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// With openid among the scopes the ID token has to be one for this very consent; without it, what there is of it must not be wrong.
func TestIDTokenOfAnotherConsentIsRefused(t *testing.T) {
	past, soon := time.Now().Add(-2*time.Minute).Unix(), time.Now().Add(-30*time.Second).Unix()
	for name, tc := range map[string]struct {
		claims         map[string]any
		member, issuer string
		asked, unasked bool // whether it connects with openid among the scopes, and without
	}{
		"a good one":             {asked: true, unasked: true},
		"another nonce":          {claims: map[string]any{"nonce": "CANARY"}, unasked: true},
		"no nonce":               {claims: map[string]any{"nonce": nil}, unasked: true},
		"a nonce that is a list": {claims: map[string]any{"nonce": []string{"CANARY"}}, unasked: true},
		"another audience":       {claims: map[string]any{"aud": "client-2"}},
		"no audience":            {claims: map[string]any{"aud": nil}, unasked: true},
		"several audiences":      {claims: map[string]any{"aud": []string{"api", "client-1"}}, asked: true, unasked: true},
		"several others":         {claims: map[string]any{"aud": []string{"api", "client-2"}}},
		"expired":                {claims: map[string]any{"exp": past}},
		"expired by our clock":   {claims: map[string]any{"exp": soon}, asked: true, unasked: true},
		"an end that is none":    {claims: map[string]any{"exp": "tomorrow"}},
		"no end":                 {claims: map[string]any{"exp": nil}, unasked: true},
		"an end far away":        {claims: map[string]any{"exp": 1e300}},
		"another issuer":         {claims: map[string]any{"iss": "https://evil.example"}, issuer: "https://idp.example"},
		"the issuer":             {issuer: "https://idp.example", asked: true, unasked: true},
		"an issuer that nobody configured": {
			claims: map[string]any{"iss": "https://elsewhere.example"}, asked: true, unasked: true,
		},
		"not a JWT":            {member: `"CANARY.x"`, unasked: true},
		"not JSON inside":      {member: `"aa.bb.cc"`, unasked: true},
		"none":                 {member: `null`, asked: true, unasked: true},
		"claims of wrong type": {claims: map[string]any{"sub": 7}, unasked: true},
	} {
		for _, asked := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				e := newConsentEnv(t, consentSetup{
					revokes: true,
					provider: authflowtest.Config{IDToken: true, Issuer: tc.issuer, Account: func(string) authflowtest.Account {
						return authflowtest.Account{Claims: tc.claims}
					}},
					change: func(in *Integration) {
						in.Issuer = tc.issuer
						if asked {
							in.Scopes = append([]string{"openid"}, in.Scopes...)
						}
					},
				})
				if tc.member != "" {
					e.provider.Misbehave(authflowtest.Member("id_token", tc.member))
				}
				b, link := e.newBrowser(), e.link()
				at := b.click(link)
				require.Equal(t, asked, mustParse(t, at).Query().Has("nonce"), "a nonce is sent with openid alone")
				callback, err := e.provider.Visit(at)
				require.NoError(t, err)
				page := b.get(callback.String())
				require.NoError(t, e.broker.Wait(t.Context()))
				if want := map[bool]bool{true: tc.asked, false: tc.unasked}[asked]; want {
					require.Equal(t, http.StatusSeeOther, page.status, page.body)
					require.NotNil(t, e.stored(acme))
					require.Empty(t, e.provider.Revocations())
					return
				}
				require.Equal(t, http.StatusBadGateway, page.status)
				require.Contains(t, page.body, "an ID token")
				require.NotContains(t, page.body+e.logs.String(), "CANARY")
				require.Nil(t, e.stored(acme))
				require.Equal(t, 1, e.count(resultExchange))
				require.Len(t, e.provider.Revocations(), 1, "what was issued is given back")
				require.Equal(t, http.StatusOK, b.get(link).status, "the link is not spent")
			})
		}
	}
}

func TestEveryConsentHasANonceOfItsOwn(t *testing.T) {
	e := newConsentEnv(t, consentSetup{change: func(in *Integration) {
		in.Scopes = []string{"openid"}
		resolve := in.Resolve
		in.Resolve = func(org tokenstore.Org) (Endpoints, error) {
			ep, err := resolve(org)
			ep.AuthorizationParams = map[string]string{"nonce": "configured"}
			ep.AuthorizationURL += "?nonce=kept"
			return ep, err
		}
	}})
	b, link := e.newBrowser(), e.link()
	seen := map[string]bool{}
	for range 3 {
		nonces := mustParse(t, b.click(link)).Query()["nonce"]
		require.Len(t, nonces, 1)
		require.Len(t, nonces[0], 43, "256 bits")
		seen[nonces[0]] = true
	}
	require.Len(t, seen, 3)
}
