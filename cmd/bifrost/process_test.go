package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const (
	patience = 20 * time.Second // for what must happen; the machine may be busy
	pollTime = 20 * time.Millisecond

	operatorToken = "CANARY-operator-token"
	callerKey     = "CANARY-caller-key"
	clientSecret  = "CANARY-client-secret" // authflowtest's default
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bifrost-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "bifrost")
	build := exec.Command("go", "build", "-race="+strconv.FormatBool(raced()), "-ldflags", "-X main.version=v0.0.0-test", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// raced reports whether the tests run under the race detector: then the program does too.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// setup is a directory with a configuration, from which any number of processes can be started one after the other.
type setup struct {
	dir, config      string
	proxy, auth, ops string // host:port
	vars             map[string]string
	idp              *authflowtest.Provider
}

// newSetup writes a configuration of one integration at idp, whose API is the upstream. edit changes its text.
func newSetup(t *testing.T, idp *authflowtest.Provider, edit func(*setup, string) string) *setup {
	t.Helper()
	s := &setup{dir: t.TempDir(), idp: idp, vars: map[string]string{
		"OPERATOR": operatorToken, "CALLER": callerKey, "SECRET": clientSecret,
	}}
	s.config = filepath.Join(s.dir, "bifrost.yaml")
	s.proxy, s.auth, s.ops = storetest.FreeAddr(t), storetest.FreeAddr(t), storetest.FreeAddr(t)
	text := s.text()
	if edit != nil {
		text = edit(s, text)
	}
	s.write(t, text)
	return s
}

func (s *setup) text() string {
	return strings.NewReplacer("PROXY", s.proxy, "AUTH", s.auth, "OPS", s.ops, "DIR", s.dir, "IDP", s.idp.BaseURL).Replace(`
proxy: {listen: PROXY}
auth:
  listen: AUTH
  operators:
    - {name: ops, token: {env: OPERATOR}}
ops: {listen: OPS}
store: {file: DIR/bifrost.db}
log: {level: debug}
callers:
  - {name: workflows, key: {env: CALLER}, orgs: ["*", "@global"], integrations: ["*"]}
integrations:
  graph:
    description: users
    route: /graph
    upstream: IDP/api
    client_id: client-1
    client_secret: {env: SECRET}
    authorization_url: IDP/authorize
    token_url: IDP/token
    scopes: read
`)
}

// write replaces the configuration at once, as a careful editor does.
func (s *setup) write(t *testing.T, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(s.config+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(s.config+".new", s.config))
}

// running is a process of the binary.
type running struct {
	*setup
	cmd    *exec.Cmd
	stderr *output
	exited chan struct{} // closed once cmd.Wait has returned
}

// launch starts `bifrost serve`. The test's end kills what is left of it.
func (s *setup) launch(t *testing.T) *running {
	t.Helper()
	r := &running{setup: s, stderr: new(output), exited: make(chan struct{})}
	r.cmd = exec.Command(binary, "serve", "-config", s.config)
	r.cmd.Stderr, r.cmd.Env = r.stderr, s.environ()
	require.NoError(t, r.cmd.Start())
	go func() { // ends with the process
		_ = r.cmd.Wait() // ProcessState tells
		close(r.exited)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it may have ended
		<-r.exited
		if strings.Contains(r.stderr.String(), "DATA RACE") {
			t.Error("bifrost has a data race")
		}
		if t.Failed() {
			t.Logf("stderr of bifrost:\n%s", r.stderr.String())
		}
	})
	return r
}

// start launches and waits until bifrost is ready.
func (s *setup) start(t *testing.T) *running {
	t.Helper()
	r := s.launch(t)
	require.Eventually(t, func() bool {
		status, _ := fetch(t, "http://"+s.ops+"/readyz")
		return status == http.StatusOK || r.hasEnded()
	}, patience, pollTime)
	require.False(t, r.hasEnded(), "bifrost ended")
	return r
}

func (s *setup) environ() []string {
	env := append(os.Environ(), "BIFROST_SERVER=http://"+s.auth, "BIFROST_OPERATOR_TOKEN="+operatorToken)
	for name, value := range s.vars {
		env = append(env, name+"="+value)
	}
	return env
}

func (r *running) hasEnded() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

func (r *running) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	require.NoError(t, r.cmd.Process.Signal(sig))
}

// exit waits for the end and returns the exit code.
func (r *running) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-r.exited:
	case <-time.After(patience):
		require.Fail(t, "bifrost does not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

// logged waits until the log contains text.
func (r *running) logged(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(r.stderr.String(), text) }, patience, pollTime, "log: %s", text)
}

// command runs another command of the binary beside the server and returns its stdout, stderr and exit code.
func (s *setup) command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = &out, &errs, s.environ(), s.dir
	_ = cmd.Run() // ProcessState tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// connect gives an org a connection by importing a refresh token that the provider issued.
func (s *setup) connect(t *testing.T, org string) {
	t.Helper()
	s.connectTo(t, "graph", org)
}

func (s *setup) connectTo(t *testing.T, integration, org string) {
	t.Helper()
	body := fmt.Sprintf(`{"refresh_token":%q}`, s.idp.Issue(org, "read").Refresh)
	req, err := http.NewRequest(http.MethodPut, "http://"+s.auth+"/api/v1/integrations/"+integration+"/connections/"+org+"/grant", strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	status, answer := do(t, req)
	require.Equal(t, http.StatusOK, status, answer)
}

// consent gives an org a connection through a connect link and the provider's pages, and returns the pages it saw.
func (s *setup) consent(t *testing.T, org string) string {
	t.Helper()
	link, stderr, code := s.command(t, "connect-link", "graph", org)
	require.Equal(t, 0, code, stderr)
	link = strings.TrimSpace(link)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	browser := &http.Client{Jar: jar, Timeout: patience}
	resp, err := browser.Get(link)
	require.NoError(t, err)
	asked, err := io.ReadAll(resp.Body)
	require.NoError(t, errors.Join(err, resp.Body.Close()))

	req, err := http.NewRequest(http.MethodPost, link, nil)
	require.NoError(t, err)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err = browser.Do(req) // to the provider, which consents, back to the callback, and on to the result page
	require.NoError(t, err)
	result, err := io.ReadAll(resp.Body)
	require.NoError(t, errors.Join(err, resp.Body.Close()))
	require.Equal(t, http.StatusOK, resp.StatusCode, string(result))
	return string(asked) + string(result)
}

// call makes a request through the proxy.
func (s *setup) call(t *testing.T, org, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+path, nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+callerKey)
	req.Header.Set("X-Org-ID", org)
	return do(t, req)
}

// fetch returns the answer to a GET; status 0 says that there was none.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// output is a buffer that a process writes while the test reads.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) contains(text string) bool { return strings.Contains(o.String(), text) }
