package e2e_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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
	patience = 30 * time.Second // for what must happen; the machine may be busy
	pollTime = 10 * time.Millisecond

	operatorToken = "CANARY-operator-token"
	callerKey     = "CANARY-caller-key"

	// orgOfBrowser is the header by which a test's browser says who consents: clients keep it over redirects.
	orgOfBrowser = "X-Test-User"
)

// binaries are the program under test, each built when it is first asked for.
type binaries struct{ plain, raced func() (string, error) }

var built binaries // by TestMain, once

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bifrost-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.plain = sync.OnceValues(func() (string, error) { return build(filepath.Join(dir, "bifrost")) })
	built.raced = sync.OnceValues(func() (string, error) { return build(filepath.Join(dir, "bifrost-race"), "-race") })
	code := m.Run()
	_ = os.RemoveAll(dir) // what is left is temporary
	os.Exit(code)
}

func build(to string, flags ...string) (string, error) {
	args := slices.Concat([]string{"build", "-o", to}, flags, []string{".."})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build bifrost: %w\n%s", err, out)
	}
	return to, nil
}

// newProvider serves a provider at which the org that a test's browser names consents.
func newProvider(t *testing.T, cfg authflowtest.Config) *authflowtest.Provider {
	t.Helper()
	if cfg.Consent == nil {
		cfg.Consent = func(_ http.ResponseWriter, r *http.Request) (string, bool) {
			return r.Header.Get(orgOfBrowser), true
		}
	}
	return authflowtest.New(t, cfg)
}

// site is an installation: one configuration and one store for any number of replicas, at the same time or one after another.
type site struct {
	t      *testing.T
	dir    string
	binary func() (string, error)
	idp    *authflowtest.Provider
	yaml   string            // with PROXY, AUTH and OPS for a replica's addresses
	env    map[string]string // the secrets
	starts int
}

// newSite returns a site with a file store and the integration graph, whose provider and upstream are idp. Its yaml may be
// changed before the first start.
func newSite(t *testing.T, idp *authflowtest.Provider) *site {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	s := &site{t: t, dir: t.TempDir(), binary: built.plain, idp: idp, env: map[string]string{
		"OPERATOR": operatorToken, "CALLER": callerKey, "SECRET": idp.ClientSecret(), "KEY": base64.StdEncoding.EncodeToString(key),
	}}
	s.yaml = strings.NewReplacer("IDP", idp.BaseURL, "DIR", s.dir).Replace(`
proxy: {listen: PROXY}
auth:
  listen: AUTH
  operators:
    - {name: ops, token: {env: OPERATOR}}
ops: {listen: OPS}
store: {file: "DIR/bifrost.db"}
encryption_keys:
  - {id: k1, env: KEY}
callers:
  - {name: workflows, key: {env: CALLER}, orgs: ["*", "@global"], integrations: ["*"]}
integrations:
  graph:
    route: /graph
    upstream: IDP/api
    client_id: client-1
    client_secret: {env: SECRET}
    authorization_url: IDP/authorize
    token_url: IDP/token
    revocation_url: IDP/revoke
    scopes: read
    refresh_tokens: one_time
`)
	return s
}

// replace changes the configuration's text, which must be there.
func (s *site) replace(old, text string) {
	s.t.Helper()
	require.Contains(s.t, s.yaml, old)
	s.yaml = strings.Replace(s.yaml, old, text, 1)
}

// onRedis has the site keep its records there.
func (s *site) onRedis(address string) {
	s.t.Helper()
	s.env["REDIS"] = address
	s.replace(`store: {file: "`+s.dir+`/bifrost.db"}`, "store: {redis: {url: {env: REDIS}}}")
}

// replica is a running process.
type replica struct {
	site             *site
	t                *testing.T
	proxy, auth, ops string // base URLs
	client           *http.Client
	cmd              *exec.Cmd
	stderr           *output
	exited           chan struct{} // closed once cmd.Wait has returned
}

// start starts a replica and waits until it is ready. The test's end kills what is left of it.
func (s *site) start() *replica {
	t := s.t
	t.Helper()
	binary, err := s.binary()
	require.NoError(t, err)
	proxy, auth, ops := storetest.FreeAddr(t), storetest.FreeAddr(t), storetest.FreeAddr(t)
	s.starts++
	config := filepath.Join(s.dir, "bifrost-"+strconv.Itoa(s.starts)+".yaml")
	text := strings.NewReplacer("PROXY", proxy, "AUTH", auth, "OPS", ops).Replace(s.yaml)
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))

	r := &replica{
		site: s, t: t, proxy: "http://" + proxy, auth: "http://" + auth, ops: "http://" + ops,
		client: newClient(), stderr: new(output), exited: make(chan struct{}),
	}
	r.cmd = exec.Command(binary, "serve", "-config", config)
	r.cmd.Stderr, r.cmd.Env = r.stderr, os.Environ()
	for name, value := range s.env {
		r.cmd.Env = append(r.cmd.Env, name+"="+value)
	}
	require.NoError(t, r.cmd.Start())
	go func() { // ends with the process
		_ = r.cmd.Wait() // ProcessState tells
		close(r.exited)
	}()
	t.Cleanup(r.end)
	require.Eventually(t, func() bool {
		ans, err := r.try(r.request(http.MethodGet, r.ops+"/readyz", ""))
		return err == nil && ans.Status == http.StatusOK || r.hasEnded()
	}, patience, pollTime, "bifrost is not ready")
	require.False(t, r.hasEnded(), "bifrost has ended")
	return r
}

// end kills what is left of the replica and looks at what it has written.
func (r *replica) end() {
	r.kill()
	r.client.CloseIdleConnections()
	stderr := r.stderr.String()
	if strings.Contains(stderr, "DATA RACE") || strings.Contains(stderr, "panic") {
		r.t.Error("bifrost has a data race or panicked")
	}
	if r.t.Failed() {
		r.t.Logf("the end of bifrost's log:\n%s", stderr[max(0, len(stderr)-10_000):])
	}
}

// kill ends the process with SIGKILL.
func (r *replica) kill() {
	_ = r.cmd.Process.Kill() // it may have ended
	<-r.exited
}

// stop ends the process in good order.
func (r *replica) stop() {
	r.t.Helper()
	require.NoError(r.t, r.cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(r.t, r.hasEnded, patience, pollTime, "bifrost does not end")
	require.Equal(r.t, 0, r.cmd.ProcessState.ExitCode())
}

func (r *replica) hasEnded() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// answer is an HTTP answer.
type answer struct {
	Status int
	Header http.Header
	Body   string
}

// request makes a request without credentials; a body is JSON.
func (r *replica) request(method, address, body string) *http.Request {
	r.t.Helper()
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	require.NoError(r.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// try sends a request. It follows no redirect, and any goroutine may use it.
func (r *replica) try(req *http.Request) (answer, error) {
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

func (r *replica) send(req *http.Request) answer {
	r.t.Helper()
	ans, err := r.try(req)
	require.NoError(r.t, err)
	return ans
}

// proxied makes a request to the proxy listener for an org; without one there is no X-Org-ID.
func (r *replica) proxied(org, path string) *http.Request {
	r.t.Helper()
	req := r.request(http.MethodGet, r.proxy+path, "")
	req.Header.Set("Authorization", "Bearer "+callerKey)
	if org != "" {
		req.Header.Set("X-Org-ID", org)
	}
	return req
}

// call sends a request of an org through the proxy.
func (r *replica) call(org, path string) answer {
	r.t.Helper()
	return r.send(r.proxied(org, path))
}

// api calls the JSON API as an operator.
func (r *replica) api(method, path, body string) answer {
	r.t.Helper()
	req := r.request(method, r.auth+"/api/v1"+path, body)
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	return r.send(req)
}

func connectionPath(org string) string { return "/integrations/graph/connections/" + org }

// status is the status of a connection as the JSON API tells it.
func (r *replica) status(org string) string {
	r.t.Helper()
	ans := r.api(http.MethodGet, connectionPath(org), "")
	require.Equal(r.t, http.StatusOK, ans.Status, ans.Body)
	var connection struct{ Status string }
	require.NoError(r.t, json.Unmarshal([]byte(ans.Body), &connection))
	return connection.Status
}

// adopt gives an org a connection by importing a refresh token that the provider has issued to it: one POST.
func (r *replica) adopt(org string) {
	r.t.Helper()
	r.adoptAt("graph", r.site.idp, org)
}

// adoptAt is adopt at another integration and its provider.
func (r *replica) adoptAt(integration string, idp *authflowtest.Provider, org string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"refresh_token":%q}`, idp.Issue(org, "read").Refresh)
	ans := r.api(http.MethodPut, "/integrations/"+integration+"/connections/"+org+"/grant", body)
	require.Equal(r.t, http.StatusOK, ans.Status, ans.Body)
}

// consent gives an org a connection through a connect link and the provider's consent, and returns every page on the way.
func (r *replica) consent(org string) []answer {
	r.t.Helper()
	ans := r.api(http.MethodPost, connectionPath(org)+"/connect-link", `{}`)
	require.Equal(r.t, http.StatusOK, ans.Status, ans.Body)
	var link struct{ URL string }
	require.NoError(r.t, json.Unmarshal([]byte(ans.Body), &link))

	jar, err := cookiejar.New(nil)
	require.NoError(r.t, err)
	var pages []answer
	address, method := link.URL, http.MethodGet
	for len(pages) < 10 {
		req := r.request(method, address, "")
		req.Header.Set(orgOfBrowser, org)
		req.Header.Set("Sec-Fetch-Site", "same-origin") // of the button; on the other steps it means nothing
		for _, c := range jar.Cookies(req.URL) {
			req.AddCookie(c)
		}
		page := r.send(req)
		jar.SetCookies(req.URL, (&http.Response{Header: page.Header}).Cookies())
		pages = append(pages, page)
		switch to, err := url.Parse(page.Header.Get("Location")); {
		case page.Status == http.StatusSeeOther:
			require.NoError(r.t, err)
			address, method = req.URL.ResolveReference(to).String(), http.MethodGet
		case len(pages) == 1:
			method = http.MethodPost // the ticket's page: its button sends the form to the page's own address
		default:
			require.Equal(r.t, http.StatusOK, page.Status, page.Body)
			return pages
		}
	}
	require.Fail(r.t, "the consent does not end")
	return nil
}

// metric returns the sum of the series of that name whose labels contain every one of labels, such as `result="ok"`.
func (r *replica) metric(name string, labels ...string) float64 {
	r.t.Helper()
	sum := 0.0
	for line := range strings.Lines(r.send(r.request(http.MethodGet, r.ops+"/metrics", "")).Body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok {
			series, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		if !ok || series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		if slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(series, label) }) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		require.NoError(r.t, err, line)
		sum += n
	}
	return sum
}

// newClient returns a client with connections enough for a crowd.
func newClient() *http.Client {
	return &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 4096, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
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
