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

// mounted is a folder of secret files as Kubernetes mounts one: each is a link into ..data, which is a link that is swapped.
type mounted struct{ dir, version string }

// swap puts all files in place at once.
func (m *mounted) swap(t *testing.T, files map[string]string) {
	t.Helper()
	before := m.version
	m.version += "v"
	require.NoError(t, os.MkdirAll(filepath.Join(m.dir, m.version), 0o700))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(m.dir, m.version, name), []byte(text), 0o600))
		if before == "" {
			require.NoError(t, os.Symlink("..data/"+name, filepath.Join(m.dir, name)))
		}
	}
	require.NoError(t, os.Symlink(m.version, filepath.Join(m.dir, "..data_tmp")))
	require.NoError(t, os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")))
	if before != "" {
		require.NoError(t, os.RemoveAll(filepath.Join(m.dir, before)))
	}
}

// TestEveryKindOfSecretFileReloads changes each secret by its file alone: the caller's key, the operator's token, the client secret
// and the encryption keys. What counted before must not count any more.
func TestEveryKindOfSecretFileReloads(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{})
	s := newSetup(t, idp, func(_ *setup, text string) string {
		return strings.NewReplacer("{env: CALLER}", "{file: secrets/caller}", "{env: OPERATOR}", "{file: secrets/operator}",
			"{env: SECRET}", "{file: secrets/client}").Replace(text) + "encryption_keys: [{id: one, file: secrets/key}]\n"
	})
	m := &mounted{dir: filepath.Join(s.dir, "secrets")}
	key, _, _ := s.command(t, "key", "new")
	files := map[string]string{"caller": callerKey, "operator": operatorToken, "client": clientSecret, "key": key}
	m.swap(t, files)
	r := s.start(t)
	s.connect(t, "acme")
	reloaded := func(want string, now func() bool) {
		t.Helper()
		require.Eventually(t, now, patience, pollTime, "%s", want)
	}
	asks := func(key string) int {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/graph/me", nil)
		require.NoError(t, err)
		req.Header.Set("X-Bifrost-Key", key)
		req.Header.Set("X-Org-ID", "acme")
		status, _ := do(t, req)
		return status
	}
	operates := func(token string) int {
		req, err := http.NewRequest(http.MethodPost, "http://"+s.auth+"/api/v1/integrations/graph/connections/acme/refresh", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		status, _ := do(t, req)
		return status
	}

	files["caller"] = "CANARY-next-caller"
	m.swap(t, files)
	reloaded("the caller's key", func() bool { return asks("CANARY-next-caller") == http.StatusOK })
	require.Equal(t, http.StatusUnauthorized, asks(callerKey))

	files["operator"] = "CANARY-next-operator"
	m.swap(t, files)
	reloaded("the operator's token", func() bool { return operates("CANARY-next-operator") == http.StatusOK })
	require.Equal(t, http.StatusUnauthorized, operates(operatorToken))

	idp.SetClientSecret("CANARY-next-secret")
	require.Equal(t, http.StatusServiceUnavailable, operates("CANARY-next-operator"))
	files["client"] = "CANARY-next-secret"
	m.swap(t, files)
	reloaded("the client secret", func() bool { return operates("CANARY-next-operator") == http.StatusOK })

	files["key"], _, _ = s.command(t, "key", "new")
	m.swap(t, files)
	r.logged(t, `the encryption key \"one\" has other bytes than before`)
	require.Equal(t, "0", s.metric(t, reloadSuccessful))
	files["key"] = key
	m.swap(t, files)
	reloaded("what is in force", func() bool { return s.metric(t, reloadSuccessful) == "1" })
	require.NotContains(t, r.stderr.String(), "CANARY")
	require.NotContains(t, r.stderr.String(), strings.TrimSpace(key))
}

// TestASecretFileThatGoesLeavesTheRunningConfiguration empties and removes each secret file in turn.
func TestASecretFileThatGoesLeavesTheRunningConfiguration(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.NewReplacer("{env: CALLER}", "{file: caller}", "{env: OPERATOR}", "{file: operator}", "{env: SECRET}", "{file: client}").
			Replace(text) + "encryption_keys: [{id: one, file: key}]\n"
	})
	key, _, _ := s.command(t, "key", "new")
	files := map[string]string{"caller": callerKey, "operator": operatorToken, "client": clientSecret, "key": key}
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600))
	}
	r := s.start(t)
	s.connect(t, "acme")
	works := func(when string) {
		t.Helper()
		status, body := s.call(t, "acme", "/graph/me")
		require.Equal(t, http.StatusOK, status, "%s: %s", when, body)
		status, body = s.api(t, http.MethodPost, "/integrations/graph/connections/acme/refresh", "")
		require.Equal(t, http.StatusOK, status, "%s: %s", when, body)
	}
	for name, text := range files {
		file := filepath.Join(s.dir, name)
		for what, harm := range map[string]func() error{
			"is emptied": func() error { return os.WriteFile(file, nil, 0o600) },
			"is removed": func() error { return os.Remove(file) },
		} {
			require.NoError(t, harm())
			require.Eventually(t, func() bool { return s.metric(t, reloadSuccessful) == "0" }, patience, pollTime, "%s %s", name, what)
			works(name + " " + what)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			require.Eventually(t, func() bool { return s.metric(t, reloadSuccessful) == "1" }, patience, pollTime, "%s is back", name)
		}
	}
	require.Contains(t, r.stderr.String(), "the file is empty")
	require.Contains(t, r.stderr.String(), "the file cannot be read")
	works("at the end")
}
