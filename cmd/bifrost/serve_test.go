package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func TestServeAnswersOnThreeListeners(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)

	status, body := fetch(t, "http://"+s.ops+"/healthz")
	require.Equal(t, http.StatusOK, status)
	require.JSONEq(t, `{"status":"ok"}`, body)
	_, body = fetch(t, "http://"+s.ops+"/readyz")
	require.JSONEq(t, `{"status":"ok","store":"ok"}`, body)

	s.connect(t, "acme")
	status, body = s.call(t, "acme", "/graph/v1.0/users?$top=5")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, `"user":"acme"`)
	require.Contains(t, body, `"path":"/api/v1.0/users"`)
	require.Contains(t, body, `"query":"$top=5"`)

	_, metrics := fetch(t, "http://"+s.ops+"/metrics")
	require.Contains(t, metrics, `bifrost_build_info{goversion="go1.`)
	require.Contains(t, metrics, `version="v0.0.0-test"`)
	require.Contains(t, metrics, "bifrost_config_last_reload_successful 1\n")
	require.Contains(t, metrics, "bifrost_config_last_reload_success_timestamp_seconds 1.")
	require.Contains(t, metrics, `bifrost_requests_total{code="200",integration="graph",origin="upstream"} 1`)
	for _, zero := range []string{
		`bifrost_callbacks_total{integration="graph",result="denied"} 0`,
		`bifrost_request_errors_total{integration="graph",reason="needs_reconnect"} 0`,
		`bifrost_token_refreshes_total{integration="graph",result="rejected_client"} 0`,
		`bifrost_unpersisted_tokens 0`,
		`bifrost_connections{integration="graph",status="needs_reconnect"} 0`,
	} {
		require.Contains(t, metrics, zero+"\n", "a counter that appears with its first event has no increase")
	}
	require.Contains(t, metrics, "process_open_fds")
	require.Contains(t, metrics, "go_goroutines")

	require.Contains(t, r.stderr.String(), `"msg":"bifrost is serving"`)
	require.Contains(t, r.stderr.String(), `"store":"`+s.dir+`/bifrost.db"`)
	require.NotContains(t, r.stderr.String(), "no callers are configured")
}

func TestListenersDoNotAnswerTheOthersPaths(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.start(t)
	for addr, paths := range map[string][]string{
		s.proxy: {"/metrics", "/healthz", "/readyz", "/integrations", "/api/v1/integrations", "/oauth/connect/graph", "/debug/pprof/"},
		s.auth:  {"/metrics", "/healthz", "/readyz", "/graph/v1.0/users", "/debug/pprof/"},
		s.ops:   {"/integrations", "/api/v1/integrations", "/oauth/connect/graph", "/graph/v1.0/users", "/", "/debug/pprof/"},
	} {
		for _, path := range paths {
			req, err := http.NewRequest(http.MethodGet, "http://"+addr+path, nil)
			require.NoError(t, err)
			req.Header.Set("X-Bifrost-Key", callerKey)
			req.Header.Set("X-Org-ID", "acme")
			status, body := do(t, req)
			require.Equal(t, http.StatusNotFound, status, "%s%s: %s", addr, path, body)
		}
	}
}

func TestProfilesAreServedWhereAsked(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.Replace(text, "ops: {listen:", "ops: {pprof: true, listen:", 1)
	})
	s.start(t)
	status, _ := fetch(t, "http://"+s.ops+"/debug/pprof/")
	require.Equal(t, http.StatusOK, status)
	_, heap := fetch(t, "http://"+s.ops+"/debug/pprof/heap?debug=1")
	require.Contains(t, heap, "@ heap/1048576", "allocations are sampled")
	status, _ = fetch(t, "http://"+s.proxy+"/debug/pprof/")
	require.Equal(t, http.StatusNotFound, status)
}

func TestTakenPortEndsTheStart(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	taken, err := net.Listen("tcp", s.auth)
	require.NoError(t, err)
	defer taken.Close()

	r := s.launch(t)
	require.Equal(t, 1, r.exit(t))
	require.Contains(t, r.stderr.String(), "auth.listen")
	require.Contains(t, r.stderr.String(), "address already in use")
	require.NoFileExists(t, filepath.Join(s.dir, "bifrost.db"), "nothing is opened before the ports are ours")
}

func TestSecondProcessOnTheSameStoreEnds(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{})
	first := newSetup(t, idp, nil)
	first.start(t)
	second := newSetup(t, idp, func(s *setup, text string) string { return strings.ReplaceAll(text, s.dir, first.dir) })
	r := second.launch(t)
	require.Equal(t, 1, r.exit(t))
	require.Contains(t, r.stderr.String(), "another process has the store open")
	require.Contains(t, r.stderr.String(), first.dir+"/bifrost.db")
}

func TestKeyFileIsMadeOnceAndMustStay(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	key := filepath.Join(s.dir, "bifrost.db.key")
	r := s.start(t)
	r.logged(t, "back it up")
	info, err := os.Stat(key)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	s.connect(t, "acme")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))

	again := s.start(t)
	require.NotContains(t, again.stderr.String(), "back it up")
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
	again.signal(t, sigTerm)
	require.Equal(t, 0, again.exit(t))

	require.NoError(t, os.Remove(key))
	lost := s.launch(t)
	require.Equal(t, 1, lost.exit(t))
	require.Contains(t, lost.stderr.String(), "put the file back")
	require.NoFileExists(t, key, "a new key would be taken for the lost one")

	other, _, _ := s.command(t, "key", "new")
	require.NoError(t, os.WriteFile(key, []byte(other), 0o600))
	wrong := s.launch(t)
	require.Equal(t, 1, wrong.exit(t), "another key must not open the store")
	require.Contains(t, wrong.stderr.String(), "no encryption key opens this store")
}

func TestEmptiedStoreEndsTheStart(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)
	s.connect(t, "acme")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))

	require.NoError(t, os.Remove(filepath.Join(s.dir, "bifrost.db")))
	emptied := s.launch(t)
	require.Equal(t, 1, emptied.exit(t))
	require.Contains(t, emptied.stderr.String(), "bifrost does not start")
}

func TestBadConfigurationEndsTheStartWithEveryProblem(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.NewReplacer("route: /graph", "rute: /graph", "{env: SECRET}", "{env: UNSET}").Replace(text)
	})
	r := s.launch(t)
	require.Equal(t, 1, r.exit(t))
	problems := strings.Split(strings.TrimSuffix(r.stderr.String(), "\n"), "\n")
	for _, problem := range problems {
		require.Regexp(t, `^`+s.config+`:\d+: \S+: \S`, problem, "one line per problem, as check prints them")
	}
	require.Contains(t, r.stderr.String(), "integrations.graph.rute")
	require.Contains(t, r.stderr.String(), "UNSET is not set")
}

func TestOpenModeIsSaidInTheLog(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		before, rest, _ := strings.Cut(text, "callers:")
		_, after, _ := strings.Cut(rest, "integrations: [\"*\"]}\n")
		return strings.Replace(before+after, "  operators:\n    - {name: ops, token: {env: OPERATOR}}\n", "", 1)
	})
	r := s.start(t)
	r.logged(t, "no callers are configured")
	r.logged(t, "no operators are configured")

	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/graph/me", nil)
	require.NoError(t, err)
	req.Host = "rebound.example"
	req.Header.Set("X-Org-ID", "acme")
	status, body := do(t, req)
	require.Equal(t, http.StatusForbidden, status, body)
}
