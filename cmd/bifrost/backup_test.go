package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestABackupThatIsCutLeavesNothing(t *testing.T) {
	b, err := storetest.OpenFile(t).Backup()
	require.NoError(t, err)
	var whole bytes.Buffer
	_, err = b.WriteTo(&whole)
	require.NoError(t, err)
	require.NoError(t, b.Close())

	sent := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(whole.Len()))
		_, _ = w.Write(whole.Bytes()[:sent]) // then the connection is cut
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	to := filepath.Join(dir, "copy")
	save := func(force bool) error {
		a := &api{server: server.URL, client: server.Client()}
		_, _, err := saveBackup(to, force, func(w io.Writer) error { return a.download(t.Context(), "/api/v1/backup", w) })
		return err
	}
	left := func() []os.DirEntry {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		return entries
	}
	for _, sent = range []int{0, 10, whole.Len() / 2, whole.Len() - 1} {
		require.Error(t, save(false))
		require.Empty(t, left())
	}
	// Also where no length tells: the digest does.
	_, _, err = saveBackup(to, false, func(w io.Writer) error {
		_, err := w.Write(whole.Bytes()[:whole.Len()/2])
		return err
	})
	require.ErrorContains(t, err, "cut short")
	require.Empty(t, left())

	sent = whole.Len()
	require.NoError(t, save(false))
	require.ErrorContains(t, save(false), "-force")
	require.NoError(t, save(true))
	require.Len(t, left(), 1)
	raw, err := os.ReadFile(to)
	require.NoError(t, err)
	require.Equal(t, whole.Bytes(), raw)
}

func TestServeIsFoundByItsConfiguration(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:8081": "http://127.0.0.1:8081",
		"localhost:81":   "http://localhost:81",
		":8081":          "http://127.0.0.1:8081",
		"0.0.0.0:8081":   "http://127.0.0.1:8081",
		"[::]:8081":      "http://127.0.0.1:8081",
		"[::1]:8081":     "http://[::1]:8081",
		"10.1.2.3:8081":  "http://10.1.2.3:8081",
	} {
		cfg := &config.Config{Auth: config.Auth{Listen: listen, PublicURL: "https://bifrost.example.com"}}
		require.Equal(t, want, serverOf(cfg))
		cfg.Auth.TLS = &config.TLS{}
		require.Equal(t, "https://bifrost.example.com", serverOf(cfg), "its certificate is for that name")
	}
}

func TestRedisIsRekeyedBesideServeAndBacksItselfUp(t *testing.T) {
	addr, _ := redisServer(t)
	keys := "encryption_keys: [{id: old, file: old}]\n"
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.vars["REDIS"] = "redis://:" + redisPassword + "@" + addr
	configure := func(keys string) {
		text := strings.Replace(s.text(), "store: {file: "+s.dir+"/bifrost.db}", "store: {redis: {url: {env: REDIS}}}", 1)
		s.write(t, text+keys)
	}
	for _, name := range []string{"old", "new"} {
		key, _, _ := s.command(t, "key", "new")
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(key), 0o600))
	}
	configure(keys)
	r := s.start(t)
	s.connect(t, "acme")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))

	configure("encryption_keys: [{id: new, file: new}, {id: old, file: old}]\n")
	r = s.start(t)
	out, stderr, code := s.command(t, "rekey", "-config", s.config)
	require.Equal(t, 0, code, stderr)
	require.Contains(t, out, "resealed 1 records")
	// In the wrong place nothing is left to reseal, which is no reason to throw the older key away.
	right := s.vars["REDIS"]
	s.vars["REDIS"] += "/1"
	out, stderr, code = s.command(t, "rekey", "-config", s.config)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "there is no store in this redis")
	require.NotContains(t, out, "taken out")
	s.vars["REDIS"] = right
	_, stderr, code = s.command(t, "backup", "-config", s.config, "copy")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "Redis backs itself up")
	require.NoFileExists(t, filepath.Join(s.dir, "copy"))
	_, stderr, code = s.command(t, "restore", "-config", s.config, "copy")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "Redis")
	req, err := http.NewRequest(http.MethodGet, "http://"+s.auth+"/api/v1/backup", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	status, body := do(t, req)
	require.Equal(t, http.StatusNotImplemented, status)
	require.Contains(t, body, "not_supported")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))

	configure("encryption_keys: [{id: new, file: new}]\n")
	s.start(t)
	status, body = s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
}
