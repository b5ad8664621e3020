package main

import (
	"context"
	"errors"
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

// refusingStore takes no other keys, and looks around while it is asked to.
type refusingStore struct {
	store
	meanwhile func()
}

func (s refusingStore) SetKeys(context.Context, *tokenstore.Keyring) error {
	s.meanwhile()
	return errors.New("CANARY: not these")
}

// The store may take half a minute to refuse new keys. The integrations used to be the file's for so long, under the old rules
// of the proxy: requests of an integration that the file no longer has failed, and `fallback: global` already counted.
func TestARefusedReloadPutsNothingIntoForceMeanwhile(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	env := func(name string) (string, bool) { value, ok := s.vars[name]; return value, ok }
	cfg, err := load(s.config, env)
	require.NoError(t, err)
	log, level := newLog(io.Discard, cfg.Log)
	p, err := start(t.Context(), cfg, io.Discard, log, level)
	require.NoError(t, err)
	t.Cleanup(func() {
		p.listeners.close()
		require.NoError(t, p.store.Close())
	})
	asked := false
	p.store = refusingStore{p.store, func() {
		asked = true
		_, known := p.broker.Integration("graph")
		require.True(t, known)
		_, known = p.broker.Integration("calendar")
		require.False(t, known)
	}}

	watch, err := newWatch(p.writes, log)
	require.NoError(t, err)
	t.Cleanup(watch.close)
	file := filepath.Join(s.dir, "key")
	require.NoError(t, os.WriteFile(file, []byte(tokenstore.NewKey()), 0o600))
	text := strings.Replace(s.text(), "\n  graph:\n", "\n  calendar:\n", 1) + "encryption_keys: [{id: new, file: " + file + "}]\n"
	s.write(t, text)
	next, err := config.Loader{Env: env}.Load(s.config)
	require.NoError(t, err)
	r := &reloader{process: p, path: s.config, env: env, watch: watch, loaded: cfg}
	require.ErrorContains(t, r.apply(next, false), "CANARY")
	require.True(t, asked)
	_, known := p.broker.Integration("graph")
	require.True(t, known)
}
