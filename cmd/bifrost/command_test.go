package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestUnknownCommandLinesExitWithTwo(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	for _, args := range [][]string{
		{}, {"fly"}, {"key"}, {"key", "old"}, {"serve", "-wings"}, {"serve", "file"}, {"connect-link", "graph"},
		{"connect-link", "graph", "acme", "-expires", "soon"}, {"connect-link", "graph", "acme", "-expires", "-1h"},
		{"status", "-server", "nowhere"},
	} {
		stdout, stderr, code := s.command(t, args...)
		require.Equal(t, 2, code, args)
		require.Empty(t, stdout, args)
		require.True(t, strings.HasPrefix(stderr, "bifrost: "), "%v: %s", args, stderr)
	}
	for _, args := range [][]string{{"help"}, {"-h"}, {"serve", "-h"}, {"status", "--help"}} {
		stdout, stderr, code := s.command(t, args...)
		require.Equal(t, 0, code, args)
		require.Contains(t, stdout, "usage: bifrost", args)
		require.Empty(t, stderr, args)
	}
}

func TestCheckPrintsEveryProblem(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	stdout, stderr, code := s.command(t, "check")
	require.Equal(t, 0, code, stdout)
	require.Equal(t, "ok: bifrost.yaml: 1 integrations, 1 callers, 1 operators, store "+s.dir+"/bifrost.db\n", stdout)
	require.Empty(t, stderr)

	s.write(t, strings.NewReplacer("route: /graph", "rute: /graph", "{env: SECRET}", "{env: UNSET}").Replace(s.text()))
	stdout, stderr, code = s.command(t, "check", "-config", s.config)
	require.Equal(t, 1, code)
	require.Empty(t, stderr)
	require.Regexp(t, `(?m)^`+s.config+`:\d+: integrations\.graph\.rute: \S.*$`, stdout)
	require.Regexp(t, `(?m)^`+s.config+`:\d+: integrations\.graph\.client_secret\S*: .*UNSET is not set.*$`, stdout)

	s.vars["REDIS"] = "redis://:CANARY@redis.example.com:6379"
	s.write(t, strings.Replace(s.text(), "store: {file: "+s.dir+"/bifrost.db}", "store: {redis: {url: {env: REDIS}}}", 1))
	stdout, _, code = s.command(t, "check", "-config", s.config)
	require.Equal(t, 1, code)
	require.Regexp(t, `(?m)^`+s.config+`:\d+: store\.redis\.url: .*TLS.*allow_insecure.*$`, stdout)
	require.Regexp(t, `(?m)^`+s.config+`:\d+: encryption_keys: .*$`, stdout, "beside every other problem")
	require.NotContains(t, stdout, "CANARY")

	_, stderr, code = s.command(t, "check", "-config", "missing.yaml")
	require.Equal(t, 1, code)
	require.Empty(t, stderr)
}

func TestKeyNewMakesAKeyForTheConfiguration(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return text + "encryption_keys: [{id: one, file: key}]\n"
	})
	first, stderr, code := s.command(t, "key", "new")
	require.Equal(t, 0, code, stderr)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(first, "\n"))
	require.NoError(t, err)
	require.Len(t, raw, 32)
	second, _, _ := s.command(t, "key", "new")
	require.NotEqual(t, first, second)

	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "key"), []byte(first), 0o600))
	stdout, _, code := s.command(t, "check")
	require.Equal(t, 0, code, stdout)
	s.start(t)
	require.NoFileExists(t, filepath.Join(s.dir, "bifrost.db.key"))
}

// TestKeyNewMakesACaller takes what is printed as an operator does: the key to the caller, the line of stderr into the file.
func TestKeyNewMakesACaller(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	key, stderr, code := s.command(t, "key", "new")
	require.Equal(t, 0, code)
	line := regexp.MustCompile(`(?m)^key_sha256: [0-9a-f]{64}$`).FindString(stderr)
	require.NotEmpty(t, line, stderr)
	require.NotContains(t, stderr, strings.TrimSpace(key))
	s.write(t, strings.Replace(s.text(), "key: {env: CALLER}", line, 1))
	stdout, _, code := s.command(t, "check")
	require.Equal(t, 0, code, stdout)
	s.start(t)
	s.connect(t, "acme")
	status, body := s.callWith(&http.Client{Timeout: patience}, "http", "X-Bifrost-Key", strings.TrimSpace(key))
	require.Equal(t, http.StatusOK, status, body)
	status, _ = s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusUnauthorized, status)
}

func TestVersionNamesItself(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	stdout, _, code := s.command(t, "version")
	require.Equal(t, 0, code)
	require.Regexp(t, `^bifrost v0\.0\.0-test go1\.\S+ \w+/\w+\n$`, stdout)
}

func TestCommandsSpeakToARunningServer(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.start(t)
	s.connect(t, "acme")

	stdout, stderr, code := s.command(t, "status")
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `(?m)^graph +@global +not_connected +- +-$`, stdout)
	require.Regexp(t, `(?m)^graph +acme +active +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ +-$`, stdout)

	stdout, _, code = s.command(t, "status", "-json")
	require.Equal(t, 0, code)
	var all struct {
		Integrations []struct {
			Name        string
			RedirectURI string `json:"redirect_uri"`
			Connections []map[string]any
		}
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &all))
	require.Len(t, all.Integrations, 1)
	require.Equal(t, "http://"+s.auth+"/oauth/callback/graph", all.Integrations[0].RedirectURI)
	require.Contains(t, all.Integrations[0].Connections[1], "scopes_missing", "nothing is left out")

	stdout, stderr, code = s.command(t, "refresh", "graph", "acme")
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `^graph acme: active, expires \S+\n$`, stdout)
	require.Equal(t, 2, s.idp.Count("refresh_token"), "one to prove the import, one by hand")

	stdout, stderr, code = s.command(t, "disconnect", "graph", "acme")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "graph acme: disconnected\n", stdout)
	status, _ := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusFailedDependency, status)

	_, stderr, code = s.command(t, "refresh", "graph", "acme")
	require.Equal(t, 1, code)
	require.NotContains(t, stderr, "the server answered", "the problem's own words are shown")
}

func TestConnectLinkLeadsToTheConsent(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.start(t)
	stdout, stderr, code := s.command(t, "connect-link", "graph", "@global", "-expires", "10m")
	require.Equal(t, 0, code, stderr)
	link, err := url.Parse(strings.TrimSpace(stdout))
	require.NoError(t, err)
	require.Equal(t, s.auth, link.Host)
	require.Equal(t, "/oauth/connect/graph", link.Path)
	status, page := fetch(t, link.String())
	require.Equal(t, http.StatusOK, status, page)

	stdout, stderr, code = s.command(t, "connect-link", "-revoke", "graph", "@global")
	require.Equal(t, 0, code, stderr)
	require.Equal(t, "graph @global: connect links revoked: 1\n", stdout)
	status, page = fetch(t, link.String())
	require.Equal(t, http.StatusForbidden, status, page)
	stdout, _, code = s.command(t, "connect-link", "graph", "@global", "-revoke")
	require.Equal(t, 0, code)
	require.Equal(t, "graph @global: connect links revoked: 0\n", stdout)
	_, stderr, code = s.command(t, "connect-link", "-revoke", "unknown", "acme")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no integration of this name")
}

func TestAPIErrorsAreToldInTheirOwnWords(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.start(t)
	_, stderr, code := s.command(t, "connect-link", "unknown", "acme")
	require.Equal(t, 1, code)
	require.Regexp(t, `^bifrost: \S.*: \S`, stderr)

	wrong := filepath.Join(s.dir, "token")
	require.NoError(t, os.WriteFile(wrong, []byte("CANARY-wrong\n"), 0o600))
	_, stderr, code = s.command(t, "status", "-token-file", wrong)
	require.Equal(t, 1, code)
	require.NotContains(t, stderr, "CANARY")

	_, stderr, code = s.command(t, "status", "-server", "http://"+s.ops)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "does -server name the auth listener")

	_, stderr, code = s.command(t, "status", "-server", "http://"+storetest.FreeAddr(t))
	require.Equal(t, 1, code)
	require.Regexp(t, `^bifrost: no answer from http://\S+: .*connection refused.*-server\n$`, stderr)
}
