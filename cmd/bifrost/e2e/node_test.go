package e2e_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// nodeGrace is what a script may take to end after it has been asked to.
const nodeGrace = 10 * time.Second

// event is one line of JSON that a script has written.
type event map[string]any

func (e event) text(name string) string {
	s, _ := e[name].(string) // absent: empty
	return s
}

// script is a running node program that tells what happens by lines of JSON on its standard output.
type script struct {
	in io.WriteCloser

	mu     sync.Mutex // guards events
	events []event
	news   chan struct{} // holds one value when there is an event that nobody has looked at
	done   chan struct{} // closed when the program has ended
}

// startScript runs a script of this folder until the test ends. A script gets its parameters as JSON, in its one argument.
func startScript(t *testing.T, name string, parameters any, env ...string) *script {
	t.Helper()
	for _, installed := range []string{"playwright-core", "oidc-provider", "@microsoft/microsoft-graph-client", "@octokit/rest", "@slack/web-api", "@hubspot/api-client"} {
		_, err := os.Stat(filepath.Join("node_modules", installed))
		require.NoError(t, err, "the npm packages are not installed: run `make test`")
	}
	node, err := exec.LookPath("node")
	require.NoError(t, err, "node is not installed: run `make test`")
	argument, err := json.Marshal(parameters)
	require.NoError(t, err)

	s := &script{news: make(chan struct{}, 1), done: make(chan struct{})}
	cmd := exec.Command(node, name, string(argument)) // the cleanup below ends it in order
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &testLog{t: t, prefix: name + ": "}
	s.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	go func() { // ends with the program, which the cleanup ends
		defer close(s.done)
		s.read(out)
		_ = cmd.Wait() // how it ended is told by its events
	}()
	t.Cleanup(func() {
		_ = s.in.Close()                           // it may have ended
		_ = cmd.Process.Signal(syscall.SIGTERM)    // as above
		kill := time.AfterFunc(nodeGrace, func() { // no program outlives its test
			_ = cmd.Process.Kill()
		})
		<-s.done
		kill.Stop()
	})
	return s
}

// read takes the events down until the program closes its output.
func (s *script) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = event{"event": "error", "message": "not JSON: " + lines.Text()}
		}
		s.mu.Lock()
		s.events = append(s.events, e)
		s.mu.Unlock()
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
	_, _ = io.Copy(io.Discard, out) // after a line that is too long; the program must not block
}

// told returns the events so far that match, oldest first.
func (s *script) told(matches func(event) bool) []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []event
	for _, e := range s.events {
		if matches(e) {
			found = append(found, e)
		}
	}
	return found
}

// await returns the first event that matches, of those so far or to come.
func (s *script) await(t *testing.T, what string, limit time.Duration, matches func(event) bool) event {
	t.Helper()
	deadline := time.After(limit)
	for {
		if found := s.told(matches); len(found) > 0 {
			return found[0]
		}
		select {
		case <-s.news:
		case <-s.done:
			if found := s.told(matches); len(found) > 0 {
				return found[0]
			}
			require.FailNow(t, "the script has ended without "+what, "it told: %v", s.tail())
		case <-deadline:
			require.FailNow(t, "the script did not tell "+what+" in time", "it told: %v", s.tail())
		}
	}
}

// tail returns the last events, for the message of a failure.
func (s *script) tail() []event {
	all := s.told(func(event) bool { return true })
	return slices.Clone(all[max(0, len(all)-8):])
}

// send writes one line of JSON to the script.
func (s *script) send(t *testing.T, command any) {
	t.Helper()
	line, err := json.Marshal(command)
	require.NoError(t, err)
	_, err = s.in.Write(append(line, '\n'))
	require.NoError(t, err)
}

// testLog writes lines to the test's log, where they are seen only if it fails.
type testLog struct {
	t      *testing.T
	prefix string
}

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s%s", l.prefix, p)
	return len(p), nil
}
