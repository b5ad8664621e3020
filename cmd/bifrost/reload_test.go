package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// metric returns the line of /metrics that begins with name, without it.
func (s *setup) metric(t *testing.T, name string) string {
	t.Helper()
	_, text := fetch(t, "http://"+s.ops+"/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

const reloadSuccessful = "bifrost_config_last_reload_successful"

func rename(_ *setup, text string) string {
	return strings.Replace(text, "route: /graph", "route: /directory", 1)
}

func TestHangupReloadsAndKeepsTokens(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)
	s.connect(t, "acme")
	require.NoError(t, os.WriteFile(s.config, []byte(rename(s, s.text())), 0o600))
	r.signal(t, syscall.SIGHUP)
	r.logged(t, "the configuration was reloaded")
	status, body := s.call(t, "acme", "/directory/me")
	require.Equal(t, http.StatusOK, status, body)
	status, _ = s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusNotFound, status)
}

func TestChangedFileReloadsHoweverItIsReplaced(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	reach := func(path string) {
		t.Helper()
		require.Eventually(t, func() bool {
			status, _ := s.call(t, "acme", path)
			return status == http.StatusOK
		}, patience, pollTime, path)
	}
	// As Kubernetes mounts a ConfigMap: the file is a link into ..data, which is a link that is swapped.
	mount := func(version, text string) {
		t.Helper()
		require.NoError(t, os.Mkdir(filepath.Join(s.dir, version), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, version, "bifrost.yaml"), []byte(text), 0o600))
		require.NoError(t, os.Symlink(version, filepath.Join(s.dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(s.dir, "..data_tmp"), filepath.Join(s.dir, "..data")))
	}
	with := func(route string) string { return strings.Replace(s.text(), "route: /graph", "route: "+route, 1) }
	mount("..v1", with("/one"))
	require.NoError(t, os.Remove(s.config))
	require.NoError(t, os.Symlink("..data/bifrost.yaml", s.config))
	s.start(t)
	s.connect(t, "acme")
	reach("/one/me")

	mount("..v2", with("/two"))
	reach("/two/me")
	mount("..v3", with("/three"))
	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "..v2")))
	reach("/three/me")
	s.write(t, with("/four")) // by rename
	reach("/four/me")
	require.NoError(t, os.WriteFile(s.config, []byte(with("/five")), 0o600)) // in place
	reach("/five/me")
}

// TestChangedTargetOfALinkReloads: the directory to watch is the one that the link leads to, and it changes with the link.
func TestChangedTargetOfALinkReloads(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	with := func(route string) []byte {
		return []byte(strings.Replace(s.text(), "route: /graph", "route: "+route, 1))
	}
	reach := func(path string) {
		t.Helper()
		require.Eventually(t, func() bool {
			status, _ := s.call(t, "acme", path)
			return status == http.StatusOK
		}, patience, pollTime, path)
	}
	first, second := filepath.Join(t.TempDir(), "one.yaml"), filepath.Join(t.TempDir(), "two.yaml")
	require.NoError(t, os.WriteFile(first, with("/one"), 0o600))
	require.NoError(t, os.WriteFile(second, with("/two"), 0o600))
	link := func(target string) {
		t.Helper()
		require.NoError(t, os.Symlink(target, s.config+".new"))
		require.NoError(t, os.Rename(s.config+".new", s.config))
	}
	link(first)
	s.start(t)
	s.connect(t, "acme")
	require.NoError(t, os.WriteFile(first, with("/three"), 0o600))
	reach("/three/me")
	link(second)
	reach("/two/me")
	require.NoError(t, os.WriteFile(second, with("/four"), 0o600))
	reach("/four/me")
}

func TestChangedSecretFileReloads(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		return strings.Replace(text, "{env: CALLER}", "{file: secrets/caller}", 1)
	})
	file := filepath.Join(s.dir, "secrets", "caller")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("CANARY-old-key"), 0o600))
	s.start(t)
	s.connect(t, "acme")
	status, _ := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusUnauthorized, status)
	require.NoError(t, os.WriteFile(file, []byte(callerKey+"\n"), 0o600))
	require.Eventually(t, func() bool {
		status, _ := s.call(t, "acme", "/graph/me")
		return status == http.StatusOK
	}, patience, pollTime)
}

func TestBadFileLeavesTheRunningConfiguration(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)
	s.connect(t, "acme")
	before := s.metric(t, "bifrost_config_last_reload_success_timestamp_seconds")

	s.write(t, strings.NewReplacer("route: /graph", "rute: /graph", "{env: SECRET}", "{env: UNSET}").Replace(s.text()))
	r.logged(t, "the configuration cannot be used; the running one stays")
	require.Contains(t, r.stderr.String(), "integrations.graph.rute")
	require.Contains(t, r.stderr.String(), "UNSET is not set")
	require.Equal(t, "0", s.metric(t, reloadSuccessful))
	require.Equal(t, before, s.metric(t, "bifrost_config_last_reload_success_timestamp_seconds"))
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)

	s.write(t, s.text()) // back to what is in force
	require.Eventually(t, func() bool { return s.metric(t, reloadSuccessful) == "1" }, patience, pollTime)
	require.NotEqual(t, before, s.metric(t, "bifrost_config_last_reload_success_timestamp_seconds"))
}

func TestReloadSaysWhatNeedsARestart(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)
	s.connect(t, "acme")
	s.write(t, strings.NewReplacer("proxy: {listen: "+s.proxy, "proxy: {listen: "+storetest.FreeAddr(t), "/bifrost.db", "/other.db").
		Replace(rename(s, s.text())))
	r.logged(t, `"settings":["proxy.listen","store"]`)
	status, body := s.call(t, "acme", "/directory/me")
	require.Equal(t, http.StatusOK, status, body, "the rest of the file is in force, at the old address and store")
}

// TestReloadDoesNotOpenAReachableListener: the file's own address is loopback, where no callers are needed; but the address
// in force, which only a restart changes, is everybody's.
func TestReloadDoesNotOpenAReachableListener(t *testing.T) {
	everywhere := func(s *setup, text string) string {
		_, port, _ := strings.Cut(s.proxy, ":")
		return strings.Replace(text, "proxy: {listen: "+s.proxy, `proxy: {listen: ":`+port+`"`, 1)
	}
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), everywhere)
	r := s.start(t)
	before, rest, _ := strings.Cut(s.text(), "callers:")
	_, after, _ := strings.Cut(rest, "integrations: [\"*\"]}\n")
	s.write(t, before+after)
	r.logged(t, "the address in force is not loopback")
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/graph/me", nil)
	require.NoError(t, err)
	req.Header.Set("X-Org-ID", "acme")
	status, _ := do(t, req)
	require.Equal(t, http.StatusUnauthorized, status)
}

func TestReloadChangesTheLogLevel(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.Replace(text, "log: {level: debug}", "log: {level: error}", 1)
	})
	r := s.start(t)
	require.Empty(t, r.stderr.String())
	s.write(t, s.text())
	r.logged(t, "the configuration was reloaded")
}
