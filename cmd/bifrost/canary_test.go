package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// TestSecretsStayInside drives requests, refreshes, failures and reloads at debug level and then searches everything that
// bifrost writes for every secret that it was given.
func TestSecretsStayInside(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.Rotating})
	s := newSetup(t, idp, nil)
	r := s.start(t)
	var shown strings.Builder
	show := func(_ int, body string) { shown.WriteString(body + "\n") }

	s.connect(t, "acme")
	shown.WriteString(s.consent(t, "globex"))
	for _, org := range []string{"acme", "globex"} {
		status, body := s.call(t, org, "/graph/me?access_token=CANARY-query") // the upstream echoes the query
		require.Equal(t, http.StatusOK, status, body)
	}
	show(s.call(t, "nobody", "/graph/me"))
	idp.Misbehave(authflowtest.Raw(http.StatusInternalServerError, "text/html", "CANARY-provider-text"), authflowtest.OAuthError(400, "invalid_client"))
	for range 2 {
		stdout, stderr, _ := s.command(t, "refresh", "graph", "acme")
		shown.WriteString(stdout + stderr)
	}
	for _, key := range []string{"CANARY-wrong-key", callerKey} {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/graph/../me", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+key)
		show(do(t, req))
	}
	s.write(t, strings.Replace(s.text(), "client_secret: {env: SECRET}", "client_secret: CANARY-inline", 1))
	r.logged(t, "the configuration cannot be used")
	for _, path := range []string{"/api/v1/integrations/graph", "/integrations", "/oauth/callback/graph?code=CANARY-code&state=CANARY-state"} {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.auth+path, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+operatorToken)
		show(do(t, req))
	}
	show(fetch(t, "http://"+s.ops+"/metrics"))
	stdout, _, _ := s.command(t, "status", "-json")
	shown.WriteString(stdout)
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))

	places := map[string]string{"stderr": r.stderr.String(), "answers": shown.String()}
	for _, name := range []string{"bifrost.db", "bifrost.db.id"} {
		content, err := os.ReadFile(filepath.Join(s.dir, name))
		require.NoError(t, err)
		places[name] = string(content)
	}
	for place, text := range places {
		require.NotEmpty(t, text, place)
		require.NotContains(t, text, "CANARY", place)
		for _, post := range idp.Posts() {
			if post.RefreshToken != "" {
				require.NotContains(t, text, post.RefreshToken, place)
			}
		}
		for _, seen := range idp.Sightings() {
			require.NotContains(t, text, seen.Value, place)
		}
	}
}
