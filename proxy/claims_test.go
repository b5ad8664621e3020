package proxy

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// FuzzClaims reads any payload: nothing panics, what has two readings is refused, and nobody gets a right that is no valid name.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"iss":"i","sub":"s","aud":"a","exp":9e9,"o":{"p":"acme"},"r":["x"]}`,
		`{"iss":"i","sub":"s","aud":["a"],"exp":9e9,"nbf":1.5,"iat":1,"o":{"p":["acme","*","@global",""]}}`,
		`{"sub":"s","sub":"t"}`, `{"sub":"s","SUB":"t","aud":"a","exp":9e9}`, `{"exp":1e400}`, `{"a":[[[[{}]]]]}`, "\xff", `{"o":{"p":1,"p":2}}`,
	} {
		f.Add([]byte(seed))
	}
	issuer := &jwtIssuer{JWTIssuer: JWTIssuer{Issuer: "i", Audience: []string{"a"}, OrgClaim: []string{"o", "p"}, IntegrationsClaim: []string{"r"}}}
	f.Fuzz(func(t *testing.T, payload []byte) {
		all, err := readClaims(payload)
		if err != nil {
			return
		}
		var plain map[string]any
		require.NoError(t, json.Unmarshal(payload, &plain), "what counts is JSON to everybody")
		require.Equal(t, plain, all)
		c, err := issuer.check(all, time.Unix(1_000_000, 0))
		if err != nil {
			return
		}
		require.NotEmpty(t, c.subject)
		who := issuer.caller(c)
		require.False(t, who.anyOrg || who.anyIntegration || who.global || who.readsTokens)
		for org := range who.orgs {
			require.True(t, org.Valid())
		}
		require.False(t, who.may(tokenstore.Global, "GET", "/"))
		entry := &caller{orgs: map[tokenstore.Org]bool{"acme": true}, integrations: []string{"x", "y"}, global: true}
		narrow := entry.within(c)
		require.False(t, narrow.anyOrg || narrow.anyIntegration)
		require.Subset(t, entry.orgs, narrow.orgs)
		require.Subset(t, entry.integrations, narrow.integrations)
	})
}
