package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const tokenOperators = "  operators:\n    - {name: ops, token: {env: OPERATOR}}\n"

// TestAProviderAloneGuardsAReachableListener: sign-in by OIDC lets auth.listen be everybody's, whether or not the provider
// answers; a reload changes who may come, and does not end the guard.
func TestAProviderAloneGuardsAReachableListener(t *testing.T) {
	var guarded string
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		_, port, _ := strings.Cut(s.auth, ":")
		guarded = strings.NewReplacer("  listen: "+s.auth+"\n", `  listen: ":`+port+"\"\n  public_url: http://"+s.auth+"\n", tokenOperators, `  oidc:
    issuer: http://127.0.0.1:1
    client_id: bifrost
    client_secret: {env: SECRET}
    allowed_domains: [example.com]
`).Replace(text)
		return guarded
	})
	r := s.start(t)
	require.NotContains(t, r.stderr.String(), "no operators are configured")
	status, page := do(t, onAuth(t, s, "/integrations"))
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, page, "Single sign-on is unreachable")
	require.NotContains(t, page, "Operator token")
	status, _ = do(t, onAuth(t, s, "/api/v1/integrations"))
	require.Equal(t, http.StatusUnauthorized, status)

	s.write(t, strings.Replace(s.text(), tokenOperators, "", 1)) // at a loopback address, which needs a restart
	r.logged(t, "auth.operators, or auth.oidc, must stay until a restart")
	status, _ = do(t, onAuth(t, s, "/api/v1/integrations"))
	require.Equal(t, http.StatusUnauthorized, status)

	s.write(t, strings.Replace(guarded, "  oidc:\n", tokenOperators+"  oidc:\n", 1))
	r.logged(t, "the configuration was reloaded")
	req := onAuth(t, s, "/api/v1/integrations")
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	status, _ = do(t, req)
	require.Equal(t, http.StatusOK, status)
	_, page = do(t, onAuth(t, s, "/integrations"))
	require.Contains(t, page, "Operator token")
}

func onAuth(t *testing.T, s *setup, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.auth+path, nil)
	require.NoError(t, err)
	return req
}

// TestCheckSaysWhereOperatorsSignIn beside how many have a token.
func TestCheckSaysWhereOperatorsSignIn(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.Replace(text, "ops: {listen", `  oidc: {issuer: "https://login.example.com", client_id: b, client_secret: {env: SECRET}, allowed_groups: [a]}
ops: {listen`, 1)
	})
	stdout, stderr, code := s.command(t, "check")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "1 operators and those of https://login.example.com, store")
}
