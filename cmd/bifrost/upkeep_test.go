package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// underLoad calls for every org, and refreshes them in turn, while work runs. Not one request may fail.
func (s *setup) underLoad(t *testing.T, orgs []string, work func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	var done, failed atomic.Int64
	for _, org := range orgs {
		working.Go(func() {
			for ctx.Err() == nil {
				if status, body := s.call(t, org, "/graph/me"); status != http.StatusOK {
					t.Errorf("a call during the load: %d %s", status, body)
					failed.Add(1)
					return
				}
				req, err := http.NewRequest(http.MethodPost, "http://"+s.auth+"/api/v1/integrations/graph/connections/"+org+"/refresh", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+operatorToken)
				if status, body := do(t, req); status != http.StatusOK {
					t.Errorf("a refresh during the load: %d %s", status, body)
					failed.Add(1)
					return
				}
				done.Add(1)
			}
		})
	}
	require.Eventually(t, func() bool { return done.Load() > int64(len(orgs)) }, patience, pollTime)
	work()
	before := done.Load()
	require.Eventually(t, func() bool { return done.Load() > before+int64(len(orgs)) || failed.Load() > 0 }, patience, pollTime)
	stop()
	working.Wait()
	t.Logf("%d calls and refreshes, %d failed", done.Load(), failed.Load())
}

func TestABackupIsRestored(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	s := newSetup(t, idp, func(_ *setup, text string) string { return text + "    refresh_tokens: one_time\n" })
	s.vars["BIFROST_SERVER"] = "" // the configuration says where serve is
	file := filepath.Join(s.dir, "copy")
	backup := func(more ...string) (string, int) {
		out, stderr, code := s.command(t, append([]string{"backup", "-config", s.config, file}, more...)...)
		return out + stderr, code
	}
	restore := func(more ...string) (string, int) {
		out, stderr, code := s.command(t, append([]string{"restore", "-config", s.config, file}, more...)...)
		return out + stderr, code
	}
	r := s.start(t)
	orgs := []string{"acme", "globex", "initech"}
	for _, org := range append(orgs, "idle") {
		s.connect(t, org)
	}
	s.underLoad(t, orgs, func() {
		text, code := backup()
		require.Equal(t, 0, code, text)
		text, code = backup()
		require.Equal(t, 1, code)
		require.Contains(t, text, "-force")
		text, code = backup("-force")
		require.Equal(t, 0, code, text)
	})
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, code := restore()
	require.Equal(t, 1, code)
	require.Contains(t, text, "stop bifrost serve first")

	r.signal(t, syscall.SIGKILL)
	r.exit(t)
	text, code = restore()
	require.Equal(t, 0, code, text)
	require.Contains(t, text, "restored 4 connections")
	require.Contains(t, text, "bifrost refresh NAME ORG")

	posts := len(idp.Posts())
	r = s.start(t)
	require.NotContains(t, r.stderr.String(), "older copy")
	for _, org := range append(orgs, "idle") {
		status, body := s.call(t, org, "/graph/me")
		require.Equal(t, http.StatusOK, status, "the access token still works: %s", body)
	}
	require.Len(t, idp.Posts(), posts, "no refresh token was sent again")
	s.vars["BIFROST_SERVER"] = "http://" + s.auth
	out, stderr, code := s.command(t, "status")
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `graph +idle +expiring .*the store is a copy`, out, "it says what to do")
	out, stderr, code = s.command(t, "refresh", "graph", "idle")
	require.Equal(t, 0, code, stderr)
	require.Contains(t, out, "active")
	out, stderr, code = s.command(t, "status")
	require.Equal(t, 0, code, stderr)
	require.Regexp(t, `graph +idle +active .* -\n`, out)

	r.signal(t, syscall.SIGTERM)
	require.Equal(t, 0, r.exit(t))
	text, code = backup("-force") // nobody has the file now
	require.Equal(t, 0, code, text)
	for _, own := range []string{"bifrost.db", "bifrost.db.id", "bifrost.db.key"} {
		_, stderr, code = s.command(t, "backup", "-force", "-config", s.config, filepath.Join(s.dir, own))
		require.Equal(t, 1, code, "it would destroy the store")
		require.Contains(t, stderr, "is the store itself")
	}
	require.NoError(t, os.WriteFile(file, []byte("damaged"), 0o600))
	text, code = restore()
	require.Equal(t, 1, code)
	require.Contains(t, text, "not a backup")
	for line := range strings.Lines(r.stderr.String()) {
		require.NotContains(t, line, "CANARY")
	}
}

func TestAnOlderCopyIsTold(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)
	s.connect(t, "acme")
	r.signal(t, syscall.SIGTERM)
	require.Equal(t, 0, r.exit(t))
	require.NoError(t, os.Remove(filepath.Join(s.dir, "bifrost.db.id")))
	r = s.start(t)
	r.logged(t, "older copy")
	r.logged(t, `"marked":1`)
}

func TestAKeyIsReplacedUnderLoad(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	for _, name := range []string{"old", "new"} {
		key, _, _ := s.command(t, "key", "new")
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(key), 0o600))
	}
	with := func(keys string) { s.write(t, s.text()+"encryption_keys: ["+keys+"]\n") }
	const older, newer = "{id: old, file: old}", "{id: new, file: new}"
	with(older)
	r := s.start(t)
	orgs := []string{"acme", "globex", "initech"}
	for _, org := range append(orgs, "idle") {
		s.connect(t, org)
	}
	end := func() {
		r.signal(t, syscall.SIGTERM)
		require.Equal(t, 0, r.exit(t))
	}
	// Taking the old key away now would lose every connection: serve does not seal with the new one.
	with(newer)
	out, stderr, code := s.command(t, "rekey", "-config", s.config)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, `seals with the key "old", not yet with "new"`)
	require.NotContains(t, out, "can be taken out")
	end()
	with(newer)
	require.Equal(t, 1, s.launch(t).exit(t), "the records are under the old key")
	with(newer + ", " + older)
	r = s.start(t)
	s.underLoad(t, orgs, func() {
		out, stderr, code := s.command(t, "rekey", "-config", s.config)
		require.Equal(t, 0, code, stderr)
		require.Contains(t, out, "can be taken out")
	})
	end()
	out, stderr, code = s.command(t, "rekey", "-config", s.config) // nobody has the file now
	require.Equal(t, 0, code, stderr)
	require.Contains(t, out, "resealed 0 records with the newest key; 4 were under it already")

	with(newer)
	r = s.start(t)
	for _, org := range append(orgs, "idle") {
		status, body := s.call(t, org, "/graph/me")
		require.Equal(t, http.StatusOK, status, body)
	}
	end()
}
