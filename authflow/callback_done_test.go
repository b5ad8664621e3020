package authflow

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestMissingScopes(t *testing.T) {
	renewable := tokenstore.Token{Refresh: "r"}
	for name, tc := range map[string]struct {
		requested, granted []string
		token              tokenstore.Token
		want               []string
	}{
		"all granted":                          {requested: []string{"a", "b"}, granted: []string{"b", "a", "c"}},
		"one is not":                           {requested: []string{"a", "b"}, granted: []string{"a"}, want: []string{"b"}},
		"granted with its resource in front":   {requested: []string{"User.Read"}, granted: []string{"https://graph.example/User.Read"}},
		"another that ends alike":              {requested: []string{"Read"}, granted: []string{"User.Read"}, want: []string{"Read"}},
		"offline_access with a refresh token":  {requested: []string{"offline_access"}, token: renewable},
		"offline_access without refresh token": {requested: []string{"offline_access"}, want: []string{"offline_access"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, tc.want, missingScopes(tc.requested, &tokenstore.Record{Scopes: tc.granted, Token: tc.token}))
		})
	}
}
