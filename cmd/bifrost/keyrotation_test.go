package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// fleet is several replicas with the same keys.
type fleet struct {
	replicas []*running
	keyDir   string
	sessions []*http.Client // one at each replica, signed in before the keys change
}

// newFleet starts n replicas on one Redis, or a single process with a file, all with the key "old".
func newFleet(t *testing.T, n int, onRedis bool) *fleet {
	t.Helper()
	f := &fleet{keyDir: t.TempDir()}
	idp := authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.Rotating})
	addr := ""
	if onRedis {
		addr = storetest.FreeAddr(t)
		redisServerAt(t, addr, "--appendfsync", "no") // a busy disk is another test's affair
	}
	for range n {
		s := newSetup(t, idp, nil)
		s.vars["REDIS"] = "redis://:" + redisPassword + "@" + addr
		for _, name := range []string{"old", "new"} {
			if file := filepath.Join(f.keyDir, name); len(f.replicas) == 0 {
				key, _, _ := s.command(t, "key", "new")
				require.NoError(t, os.WriteFile(file, []byte(key), 0o600))
			}
		}
		f.write(t, s, "old")
		f.replicas = append(f.replicas, s.start(t))
	}
	return f
}

// write gives a replica a configuration with the keys, newest first.
func (f *fleet) write(t *testing.T, s *setup, keys ...string) {
	t.Helper()
	text := s.text()
	if !strings.HasSuffix(s.vars["REDIS"], "@") {
		text = strings.Replace(text, "store: {file: "+s.dir+"/bifrost.db}", "store: {redis: {url: {env: REDIS}}}", 1)
	}
	text += "    refresh_tokens: rotating\nencryption_keys:\n"
	for _, key := range keys {
		text += fmt.Sprintf("  - {id: %s, file: %s}\n", key, filepath.Join(f.keyDir, key))
	}
	s.write(t, text)
}

// reload gives every replica the keys and waits until each has them in force.
func (f *fleet) reload(t *testing.T, keys ...string) {
	t.Helper()
	for _, r := range f.replicas {
		f.write(t, r.setup, keys...)
	}
	opens, err := json.Marshal(keys)
	require.NoError(t, err)
	for _, r := range f.replicas {
		r.logged(t, `"the encryption keys were changed","seals_with":"`+keys[0]+`","opens":`+string(opens))
	}
}

// refused gives every replica the keys and waits until each has said why it does not take them.
func (f *fleet) refused(t *testing.T, why string, keys ...string) {
	t.Helper()
	for _, r := range f.replicas {
		f.write(t, r.setup, keys...)
	}
	for _, r := range f.replicas {
		r.logged(t, why)
		require.Equal(t, "0", r.metric(t, reloadSuccessful), "%s", why)
	}
}

// rekey runs the command beside the first replica.
func (f *fleet) rekey(t *testing.T) (out string, code int) {
	t.Helper()
	out, stderr, code := f.replicas[0].command(t, "rekey", "-config", f.replicas[0].config)
	return out + stderr, code
}

// browse makes a browser that is signed in at a replica.
func (s *setup) browse() (*http.Client, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{Jar: jar, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequest(http.MethodPost, "http://"+s.auth+"/integrations/sign-in", strings.NewReader(url.Values{"token": {operatorToken}}.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSeeOther {
		err = fmt.Errorf("a sign-in: %d", resp.StatusCode)
	}
	return browser, errors.Join(err, resp.Body.Close())
}

// page returns the body of an answer that must be 200.
func page(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	return string(body), err
}

// isSignedIn says whether the screen takes the browser for an operator's.
func (s *setup) isSignedIn(browser *http.Client) error {
	body, err := page(browser.Get("http://" + s.auth + "/integrations/graph/disconnect?org=acme")) // it asks first
	if err == nil && strings.Contains(body, `action="/integrations/sign-in"`) {
		err = errors.New("the session has ended")
	}
	return err
}

// api calls the JSON API.
func (s *setup) api(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.auth+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	return do(t, req)
}

// link makes a connect link.
func (s *setup) link(t *testing.T, org string) (*url.URL, error) {
	t.Helper()
	status, body := s.api(t, http.MethodPost, "/integrations/graph/connections/"+org+"/connect-link", "")
	var made struct{ URL string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || made.URL == "" {
		return nil, fmt.Errorf("a connect link: %d %s", status, body)
	}
	return url.Parse(made.URL)
}

// followLink consents through a link at the replica that made it.
func followLink(link *url.URL) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	browser := &http.Client{Jar: jar, Timeout: patience}
	if _, err := page(browser.Get(link.String())); err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, link.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	_, err = page(browser.Do(req))
	return err
}

// everything does once all that seals or opens something: requests, a refresh, sign-ins and a consent through a connect link. The
// link is looked at through the other replica too.
func (f *fleet) everything(t *testing.T, n int) error {
	r, other := f.replicas[n], f.replicas[(n+1)%len(f.replicas)]
	org := fmt.Sprint("org-", n)
	for range 5 {
		if status, body := r.call(t, org, "/graph/me"); status != http.StatusOK {
			return fmt.Errorf("a request: %d %s", status, body)
		}
	}
	if status, body := r.api(t, http.MethodPost, "/integrations/graph/connections/"+org+"/refresh", ""); status != http.StatusOK {
		return fmt.Errorf("a refresh: %d %s", status, body)
	}
	browser, err := r.browse()
	if err != nil {
		return err
	}
	if err := errors.Join(r.isSignedIn(browser), r.isSignedIn(f.sessions[n])); err != nil {
		return err
	}
	link, err := r.link(t, "linked-"+org)
	if err != nil {
		return err
	}
	elsewhere := *link
	elsewhere.Host = other.auth
	if _, err := page(http.Get(elsewhere.String())); err != nil {
		return fmt.Errorf("a link: %w", err)
	}
	if err := followLink(link); err != nil {
		return fmt.Errorf("a consent: %w", err)
	}
	if status, body := other.call(t, "linked-"+org, "/graph/me"); status != http.StatusOK {
		return fmt.Errorf("a request for a new connection: %d %s", status, body)
	}
	return nil
}

// underLoad does everything at every replica, again and again, while work runs. Nothing may fail.
func (f *fleet) underLoad(t *testing.T, work func()) {
	t.Helper()
	for n, r := range f.replicas {
		r.connect(t, fmt.Sprint("org-", n))
		browser, err := r.browse()
		require.NoError(t, err)
		f.sessions = append(f.sessions, browser)
	}
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	var rounds, failed atomic.Int64
	for n := range f.replicas {
		working.Go(func() {
			for ctx.Err() == nil {
				if err := f.everything(t, n); err != nil {
					failed.Add(1)
					t.Errorf("at replica %d: %v", n, err)
					return
				}
				rounds.Add(1)
			}
		})
	}
	defer func() {
		stop()
		working.Wait()
		t.Logf("%d rounds at %d replicas, %d failed", rounds.Load(), len(f.replicas), failed.Load())
	}()
	more := func() {
		before := rounds.Load()
		require.Eventually(t, func() bool { return rounds.Load() > before+2*int64(len(f.replicas)) || failed.Load() > 0 }, 3*patience, pollTime)
	}
	more()
	work()
	more()
}

func TestKeysRotateByReloadAloneUnderLoad(t *testing.T) {
	for name, c := range map[string]struct {
		replicas int
		onRedis  bool
	}{
		"one process with a file": {1, false},
		"three replicas on Redis": {3, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, c.replicas, c.onRedis)
			early, err := f.replicas[0].link(t, "early")
			require.NoError(t, err)
			f.replicas[0].connect(t, "idle")
			f.underLoad(t, func() {
				f.refused(t, `the encryption key \"old\" is still in use, it seals what is saved now`, "new")
				f.reload(t, "old", "new")
				f.reload(t, "new", "old")
				f.refused(t, `the key-check record: put it back`, "new")
				for _, r := range f.replicas { // back to what is in force
					f.write(t, r.setup, "new", "old")
					require.Eventually(t, func() bool { return r.metric(t, reloadSuccessful) == "1" }, patience, pollTime)
				}
				text, code := f.rekey(t)
				require.Equal(t, 0, code, text)
				require.Contains(t, text, "can be taken out")
				f.reload(t, "new")
			})
			for _, r := range f.replicas {
				status, body := r.call(t, "idle", "/graph/me")
				require.Equal(t, http.StatusOK, status, body)
			}
			require.NoError(t, followLink(early), "a connect link outlives the key that sealed it")
			for n, r := range f.replicas {
				require.NoError(t, r.isSignedIn(f.sessions[n]), "and so does a sign-in")
				require.NotContains(t, r.stderr.String(), "CANARY")
				r.signal(t, sigTerm)
				require.Equal(t, 0, r.exit(t))
			}
		})
	}
}

func TestRekeyWaitsForEveryReplica(t *testing.T) {
	f := newFleet(t, 2, true)
	f.replicas[0].connect(t, "acme")
	f.reload(t, "old", "new")
	quick, slow := f.replicas[0], f.replicas[1]
	f.write(t, quick.setup, "new", "old")
	quick.logged(t, `"seals_with":"new"`)
	text, code := f.rekey(t)
	require.Equal(t, 1, code)
	require.Contains(t, text, `another replica seals with the encryption key "old" still`)
	require.NotContains(t, text, "can be taken out")
	f.write(t, quick.setup, "new")
	quick.logged(t, `another replica seals with the encryption key \"old\" still`)

	slow.signal(t, sigTerm)
	require.Equal(t, 0, slow.exit(t))
	f.write(t, quick.setup, "new", "old")
	text, code = f.rekey(t)
	require.Equal(t, 0, code, text)
}

// The key that bifrost makes itself is replaced like any other.
func TestTheKeyFileIsReplacedByReloadAlone(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	r := s.start(t)
	s.connect(t, "acme")
	key, _, _ := s.command(t, "key", "new")
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "new"), []byte(key), 0o600))
	const newer, made = "{id: new, file: new}", "{id: file, file: bifrost.db.key}"
	with := func(keys string) { s.write(t, s.text()+"encryption_keys: ["+keys+"]\n") }

	with(newer)
	r.logged(t, `the encryption key \"file\" is still in use`)
	r.logged(t, "/bifrost.db.key is written {id: file, file: …}")
	with(newer + ", " + made)
	r.logged(t, `"seals_with":"new","opens":["new","file"]`)
	out, stderr, code := s.command(t, "rekey", "-config", s.config)
	require.Equal(t, 0, code, stderr)
	require.Contains(t, out, "can be taken out")
	with(newer)
	r.logged(t, `"seals_with":"new","opens":["new"]`)
	require.NoError(t, os.Remove(filepath.Join(s.dir, "bifrost.db.key")))

	s.write(t, s.text())
	r.logged(t, "encryption_keys: was taken out, and there is no key file")
	require.NoFileExists(t, filepath.Join(s.dir, "bifrost.db.key"), "a new one could not open the store")
	with(newer)
	require.Eventually(t, func() bool { return s.metric(t, reloadSuccessful) == "1" }, patience, pollTime)
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
}

// A start with a key too few is no reason to serve nobody: what the others open is served, and the log names the missing one.
func TestAMissingKeyIsNamedAtTheStart(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	for _, name := range []string{"old", "lost"} {
		key, _, _ := s.command(t, "key", "new")
		require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(key), 0o600))
	}
	with := func(keys string) { s.write(t, s.text()+"encryption_keys: ["+keys+"]\n") }
	restart := func(r *running) *running {
		r.signal(t, sigTerm)
		require.Equal(t, 0, r.exit(t))
		return s.start(t)
	}
	with("{id: old, file: old}")
	r := s.start(t)
	s.connect(t, "acme")
	with("{id: lost, file: lost}, {id: old, file: old}")
	r.logged(t, `"seals_with":"lost"`)
	s.connect(t, "globex")
	with("{id: old, file: old}")
	r.logged(t, `the encryption key \"lost\" is still in use`)

	r = restart(r)
	r.logged(t, `an encryption key is missing`)
	require.Contains(t, r.stderr.String(), `"key":"lost","records":1`)
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
	status, body = s.call(t, "globex", "/graph/me")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, "record_unreadable")
	with("{id: old, file: old}, {id: lost, file: lost}")
	r.logged(t, `"opens":["old","lost"]`)
	status, body = s.call(t, "globex", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
}
