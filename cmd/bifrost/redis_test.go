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
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const redisPassword = "CANARY-redis-password"

// redisServer starts a Redis that ends with the test, or when the function is called.
func redisServer(t *testing.T) (addr string, end func()) {
	t.Helper()
	addr = storetest.FreeAddr(t)
	return addr, redisServerAt(t, addr)
}

// redisServerAt starts one at an address; more arguments are passed on.
func redisServerAt(t *testing.T, addr string, more ...string) (end func()) {
	t.Helper()
	_, port, _ := strings.Cut(addr, ":")
	cmd := exec.Command("redis-server", append([]string{"--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes",
		"--dir", t.TempDir(), "--requirepass", redisPassword}, more...)...)
	require.NoError(t, cmd.Start(), "redis-server is needed")
	end = func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // killed
	}
	t.Cleanup(end)
	return end
}

// onRedis is a setup whose store is the Redis at addr.
func onRedis(t *testing.T, addr, more string) *setup {
	t.Helper()
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		s.vars["REDIS"] = "redis://:" + redisPassword + "@" + addr
		text = strings.Replace(text, "store: {file: "+s.dir+"/bifrost.db}", "store: {redis: {url: {env: REDIS}"+more+"}}", 1)
		return text + "encryption_keys: [{id: one, file: key}]\n"
	})
	key, _, _ := s.command(t, "key", "new")
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "key"), []byte(key), 0o600))
	return s
}

func TestAStartWaitsForRedis(t *testing.T) {
	addr := storetest.FreeAddr(t)
	s := onRedis(t, addr, "")
	r := s.launch(t)
	require.Eventually(t, func() bool { return strings.Contains(r.stderr.String(), "redis is not available yet") }, patience, pollTime)
	redisServerAt(t, addr)
	require.Eventually(t, func() bool { return strings.Contains(r.stderr.String(), "bifrost is serving") }, patience, pollTime)
	require.Equal(t, 1, strings.Count(r.stderr.String(), "not available yet"))
	require.NotContains(t, r.stderr.String(), "CANARY")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))
}

func TestAStartOnARedisThatKeepsNothingIsRefusedUnlessMeant(t *testing.T) {
	addr := storetest.FreeAddr(t)
	redisServerAt(t, addr, "--appendonly", "no")
	s := onRedis(t, addr, "")
	r := s.launch(t)
	require.Equal(t, 1, r.exit(t))
	require.Contains(t, r.stderr.String(), "accept_data_loss")

	s = onRedis(t, addr, ", accept_data_loss: true")
	r = s.start(t)
	_, body := fetch(t, "http://"+s.ops+"/readyz")
	require.NotContains(t, body, "store_problems")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))
}

func TestReadinessTellsWhatEndangersTheStore(t *testing.T) {
	addr := storetest.FreeAddr(t)
	redisServerAt(t, addr, "--appendonly", "no", "--save", "60 1", "--rename-command", "CONFIG", "")
	s := onRedis(t, addr, "")
	r := s.start(t)
	status, body := fetch(t, "http://"+s.ops+"/readyz")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `"store_problems":["unverifiable"]`)
	require.Contains(t, r.stderr.String(), "redis endangers the connections")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))
}

func TestReadinessOutlivesTheStore(t *testing.T) {
	addr, end := redisServer(t)
	s := onRedis(t, addr, "")
	s.vars["REDIS"] = "redis://:CANARY-wrong-password@" + addr
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
