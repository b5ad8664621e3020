package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// audits returns an edit that configures the audit log.
func audits(how string) func(*setup, string) string {
	return func(s *setup, text string) string {
		return text + "audit: {" + strings.ReplaceAll(how, "DIR", s.dir) + "}\n"
	}
}

func TestServeNeedsTheFolderOfItsAuditLog(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), audits("file: DIR/none/audit.log"))
	r := s.launch(t)
	require.Equal(t, 1, r.exit(t))
	require.Contains(t, r.stderr.String(), "audit: open "+s.dir+"/none/audit.log: no such file or directory")
}

// TestStdoutWhoseReaderHasGoneEndsNothing: by itself, a Go program dies of a broken pipe on stdout.
func TestStdoutWhoseReaderHasGoneEndsNothing(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), audits("stdout: true"))
	ours, theirs, err := os.Pipe()
	require.NoError(t, err)
	r := &running{setup: s, stderr: new(output), exited: make(chan struct{})}
	r.cmd = exec.Command(binary, "serve", "-config", s.config)
	r.cmd.Stdout, r.cmd.Stderr, r.cmd.Env = theirs, r.stderr, s.environ()
	require.NoError(t, r.cmd.Start())
	require.NoError(t, theirs.Close())
	go func() { // ends with the process
		_ = r.cmd.Wait() // ProcessState tells
		close(r.exited)
	}()
	t.Cleanup(func() { _ = r.cmd.Process.Kill() }) // it may have ended

	line, err := bufio.NewReader(ours).ReadString('\n')
	require.NoError(t, err)
	var e struct{ Action string }
	require.NoError(t, json.Unmarshal([]byte(line), &e))
	require.Equal(t, "start", e.Action)
	require.NoError(t, ours.Close())

	_, stderr, code := s.command(t, "disconnect", "graph", "acme")
	require.Equal(t, 0, code, stderr)
	r.logged(t, "the audit log cannot be written")
	require.Equal(t, "1", s.metric(t, "bifrost_audit_failures_total"))
	r.signal(t, syscall.SIGTERM)
	require.Equal(t, 0, r.exit(t))
}

// Scripts read what a command answers with, and used to find the line of the audit log in it.
func TestACommandsAuditLineIsNotAmongItsAnswer(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), audits("stdout: true"))
	r := s.start(t) // makes the store
	r.signal(t, syscall.SIGTERM)
	require.Equal(t, 0, r.exit(t))
	for action, args := range map[string][]string{"rekey": {"rekey"}, "backup": {"backup", filepath.Join(s.dir, "copy")}} {
		out, stderr, code := s.command(t, append(args, "-config", s.config)...)
		require.Equal(t, 0, code, stderr)
		require.NotEmpty(t, out)
		require.NotContains(t, out, `"action"`)
		require.Contains(t, stderr, `"action":"`+action+`"`)
	}
}

func TestReloadMovesTheAuditLog(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), audits("file: DIR/one.log"))
	r := s.start(t)
	one, two := filepath.Join(s.dir, "one.log"), filepath.Join(s.dir, "two.log")
	s.write(t, audits("file: DIR/none/two.log")(s, s.text()))
	r.logged(t, "the configuration cannot be used")
	s.write(t, audits("file: DIR/two.log")(s, s.text()))
	r.logged(t, "the configuration was reloaded")
	status, _ := fetch(t, "http://"+s.auth+"/oauth/callback/graph?code=x&state=y")
	require.Equal(t, http.StatusBadRequest, status)
	actions := func(path string) (list []string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			var e struct{ Action string }
			require.NoError(t, json.Unmarshal([]byte(line), &e))
			list = append(list, e.Action)
		}
		return list
	}
	require.Equal(t, []string{"start", "reload_failed", "reload"}, actions(one))
	require.Equal(t, []string{"reload", "connect_refused"}, actions(two))
}

// TestAuditLogBesideTheConfigurationIsNoChangeOfIt: lines that come faster than a change settles would hide one.
func TestAuditLogBesideTheConfigurationIsNoChangeOfIt(t *testing.T) {
	p := &process{}
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), audits("file: DIR/audit.log"))
	cfg, err := load(s.config, func(name string) (string, bool) { value, ok := s.vars[name]; return value, ok })
	require.NoError(t, err)
	p.config.Store(cfg)
	for name, want := range map[string]bool{"audit.log": true, "bifrost.db": true, "bifrost.db.id": true, "audit.log.1": false, "bifrost.yaml": false} {
		require.Equal(t, want, p.writes(name), name)
	}
}
