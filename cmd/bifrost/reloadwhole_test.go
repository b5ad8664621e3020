package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// refusingStore takes no other keys, and says why.
type refusingStore struct {
	store
	why func() error
}

func (s refusingStore) SetKeys(context.Context, *tokenstore.Keyring) error { return s.why() }

// refused starts a process in this one, whose store refuses the keys that the file has from now on, and its reloader.
func refused(t *testing.T, edit func(*setup, string) string, why func() error) (*reloader, *output) {
	t.Helper()
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	env := func(name string) (string, bool) { value, ok := s.vars[name]; return value, ok }
	cfg, err := load(s.config, env)
	require.NoError(t, err)
	told := new(output)
	log, level := newLog(told, cfg.Log)
	p, err := start(t.Context(), cfg, io.Discard, log, level)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.listeners.close()
		require.NoError(t, p.store.Close())
	})
	p.store = refusingStore{p.store, why}
	watch, err := newWatch(p.writes, log)
	require.NoError(t, err)
	t.Cleanup(watch.close)
	file := filepath.Join(s.dir, "key")
	require.NoError(t, os.WriteFile(file, []byte(tokenstore.NewKey()), 0o600))
	s.write(t, edit(s, s.text())+"encryption_keys: [{id: new, file: "+file+"}]\n")
	return &reloader{process: p, path: s.config, env: env, watch: watch, loaded: cfg}, told
}

// The store may take half a minute to refuse new keys. The integrations used to be the file's for so long, under the old rules
// of the proxy: requests of an integration that the file no longer has failed, and `fallback: global` already counted.
func TestARefusedReloadPutsNothingIntoForceMeanwhile(t *testing.T) {
	asked := false
	var r *reloader
	known := func(name string) bool { _, ok := r.process.broker.Integration(name); return ok }
	r, _ = refused(t, func(_ *setup, text string) string {
		return strings.Replace(text, "\n  graph:\n", "\n  calendar:\n", 1)
	}, func() error {
		asked = true
		require.True(t, known("graph"))
		require.False(t, known("calendar"))
		return errors.New("CANARY: not these")
	})
	next, err := config.Loader{Env: r.env}.Load(r.path)
	require.NoError(t, err)
	require.ErrorContains(t, r.apply(next, false), "CANARY")
	require.True(t, asked)
	require.True(t, known("graph"))
}

// A refused reload is tried again every half minute. Each try used to be told when a sign-in had come or a record gone since the last.
func TestARefusalIsToldOncePerCause(t *testing.T) {
	var because error
	r, told := refused(t, func(_ *setup, text string) string { return text }, func() error { return because })
	audit := filepath.Join(t.TempDir(), "audit.log")
	require.NoError(t, r.process.audit.follow(config.Audit{File: audit}))
	again := func(err error, asked bool) int {
		t.Helper()
		because = err
		before := strings.Count(told.String(), "the configuration cannot be used")
		r.look(asked)
		return strings.Count(told.String(), "the configuration cannot be used") - before
	}
	inUse := func(id string, records, shelved int) error {
		return fmt.Errorf("encryption_keys: %w", &tokenstore.KeyInUseError{ID: id, Use: tokenstore.KeyUse{Records: records, Shelved: shelved}})
	}
	require.Equal(t, 1, again(inUse("2025", 3, 0), false))
	require.Equal(t, 0, again(inUse("2025", 3, 0), false))
	require.Equal(t, 0, again(inUse("2025", 2, 1), false), "a sign-in has come")
	require.Equal(t, 1, again(inUse("2025", 2, 1), true), "a signal asks for an answer")
	require.Equal(t, 1, again(inUse("2026", 2, 1), false), "another key")
	require.Equal(t, 1, again(errors.New("the store is away"), false))
	require.Equal(t, 1, again(inUse("2026", 2, 1), false))
	require.Len(t, auditLines(t, audit), 5)

	edited := func(from, to string) {
		text, err := os.ReadFile(r.path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(r.path, []byte(strings.Replace(string(text), from, to, 1)), 0o600))
	}
	edited("route: /graph", "route: /directory")
	require.Equal(t, 0, again(inUse("2026", 1, 0), false), "the file is another, and all that is wrong with it the same")
	edited("route: /directory", "rute: /directory")
	require.Greater(t, again(nil, false), 0)
	require.Equal(t, 0, again(nil, false))
	edited("integrations:\n", "\nintegrations:\n")
	require.Greater(t, again(nil, false), 0, "the mistake is on another line")
	require.Len(t, auditLines(t, audit), 7)
}
