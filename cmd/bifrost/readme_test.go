package main

import (
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// TestTheReadmesCallWorks runs the README's first configuration, with addresses of this machine in place of Microsoft's and of
// the listeners', and sends what its curl sends.
func TestTheReadmesCallWorks(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	readme := string(text)
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(readme)
	require.NotNil(t, block)

	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, _ string) string {
		return "proxy: {listen: " + s.proxy + "}\nops: {listen: " + s.ops + "}\nstore: {file: " + s.dir + "/bifrost.db}\n" +
			strings.NewReplacer(
				"auth:\n", "auth:\n  listen: "+s.auth+"\n",
				"https://graph.microsoft.com", s.idp.BaseURL+"/api",
				"https://login.microsoftonline.com/{entity_id}/oauth2/v2.0", s.idp.BaseURL,
				"11111111-2222-3333-4444-555555555555", "client-1",
				"offline_access Directory.Read.All", "read",
			).Replace(block[1])
	})
	key, _, _ := s.command(t, "key", "new")
	for name, value := range map[string]string{
		"BIFROST_KEY": strings.TrimSpace(key), "WORKFLOWS_KEY": callerKey, "GRAPH_CLIENT_SECRET": s.vars["SECRET"],
	} {
		s.vars[name] = value
	}
	stdout, _, code := s.command(t, "check")
	require.Equal(t, 0, code, stdout)
	s.start(t)
	link, stderr, code := s.command(t, "connect-link", "Microsoft_Graph", "acme")
	require.Equal(t, 0, code, stderr)
	require.Contains(t, link, "/oauth/connect/Microsoft_Graph")
	s.connectTo(t, "Microsoft_Graph", "acme")

	curl := regexp.MustCompile(`(?m)^ *curl (.*) http://127\.0\.0\.1:8080(/\S+)$`).FindStringSubmatch(readme)
	require.NotNil(t, curl)
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+curl[2], nil)
	require.NoError(t, err)
	for _, header := range regexp.MustCompile(`-H "(.*?): (.*?)"`).FindAllStringSubmatch(curl[1], -1) {
		req.Header.Set(header[1], strings.ReplaceAll(header[2], "$WORKFLOWS_KEY", callerKey))
	}
	status, body := do(t, req)
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, `"user":"acme"`)
}

// TestTheReadmesCallersAreAccepted puts the README's example of callers into its first configuration.
func TestTheReadmesCallersAreAccepted(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.Len(t, blocks, 2)
	callers := regexp.MustCompile("(?m)^callers:\n(  .*\n)+")
	require.True(t, callers.MatchString(blocks[0][1]))
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, _ string) string {
		key := s.dir + "/workflows-key"
		require.NoError(t, os.WriteFile(key, []byte(callerKey), 0o600))
		return callers.ReplaceAllLiteralString(blocks[0][1], strings.Replace(blocks[1][1], "/run/secrets/workflows-key", key, 1))
	})
	key, _, _ := s.command(t, "key", "new")
	s.vars["BIFROST_KEY"], s.vars["GRAPH_CLIENT_SECRET"] = strings.TrimSpace(key), s.vars["SECRET"]
	stdout, _, code := s.command(t, "check")
	require.Equal(t, 0, code, stdout)
}
