package main

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const redisPassword = "CANARY-redis-password"

// redisServer starts a Redis that ends with the test, or when the function is called.
func redisServer(t *testing.T) (addr string, end func()) {
	t.Helper()
	addr = freePort(t)
	_, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(),
		"--requirepass", redisPassword)
	require.NoError(t, cmd.Start(), "redis-server is needed")
	end = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
	}
	t.Cleanup(end)
	return addr, end
}

func TestReadinessOutlivesTheStore(t *testing.T) {
	addr, end := redisServer(t)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		s.vars["REDIS"] = "redis://:CANARY-wrong-password@" + addr
		text = strings.Replace(text, "store: {file: "+s.dir+"/bifrost.db}", "store: {redis: {url: {env: REDIS}}}", 1)
		return text + "encryption_keys: [{id: one, file: key}]\n"
	})
	key, _, _ := s.command(t, "key", "new")
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "key"), []byte(key), 0o600))

	refused := s.launch(t)
	require.Equal(t, 1, refused.exit(t), "Redis refuses the password")
	require.NotContains(t, refused.stderr.String(), "CANARY")

	s.vars["REDIS"] = "redis://:" + redisPassword + "@" + addr
	r := s.start(t)
	require.Contains(t, r.stderr.String(), `"store":"redis"`)
	s.connect(t, "acme")
	end()
	require.Eventually(t, func() bool {
		status, body := fetch(t, "http://"+s.ops+"/readyz")
		return status == http.StatusOK && strings.Contains(body, `"store":"unavailable"`)
	}, patience, pollTime)
	status, _ := fetch(t, "http://"+s.ops+"/healthz")
	require.Equal(t, http.StatusOK, status)
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, "the token is in memory: %s", body)

	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))
	require.NotContains(t, r.stderr.String(), "CANARY")
	for line := range strings.Lines(r.stderr.String()) {
		require.True(t, strings.HasPrefix(line, "{"), "every line is JSON: %s", line)
	}
}
