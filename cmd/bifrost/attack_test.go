package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// attacksOnConnecting are the known attacks on connecting, C1 to C28. Each has a test that is named after it, where it proves most: in
// authflow over HTTPS at three replicas, in authflow/console, or here with the program itself.
const attacksOnConnecting = 28

func TestEveryAttackOnConnectingHasATest(t *testing.T) {
	name := regexp.MustCompile(`^func TestC([0-9]+)[A-Z]\w*\(t \*testing\.T\) \{`)
	tested := map[int][]string{}
	for _, file := range sources(t) {
		if !file.isTest() {
			continue
		}
		for line := range strings.Lines(string(file.text)) {
			if found := name.FindStringSubmatch(line); found != nil {
				n, err := strconv.Atoi(found[1])
				require.NoError(t, err)
				tested[n] = append(tested[n], file.path)
			}
		}
	}
	for n := 1; n <= attacksOnConnecting; n++ {
		require.NotEmpty(t, tested[n], "C%d has no test", n)
		delete(tested, n)
	}
	require.Empty(t, tested, "there is no such attack")
}

// flow is a browser that goes through a consent step by step. It follows no redirect unasked.
type flow struct {
	t      *testing.T
	client *http.Client
	auth   string // host:port of the listener
	host   string // that the browser believes to talk to; empty: the listener's address
	header http.Header
}

func (s *setup) flow(t *testing.T, host string) *flow {
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	return &flow{t, &http.Client{
		Jar: jar, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DisableKeepAlives: true},
	}, s.auth, host, http.Header{}}
}

// send asks the auth listener, as a front end that ends TLS would, and requires what holds for every answer to a browser.
func (f *flow) send(method, target string) (*http.Response, string) {
	f.t.Helper()
	at, err := url.Parse(target)
	require.NoError(f.t, err)
	req, err := http.NewRequest(method, "http://"+f.auth+at.RequestURI(), nil)
	require.NoError(f.t, err)
	req.Header, req.Host = f.header.Clone(), f.host
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if f.host != "" {
		for _, cookie := range f.client.Jar.Cookies(&url.URL{Scheme: "https", Host: at.Host, Path: "/"}) {
			req.AddCookie(cookie)
		}
	}
	resp, err := f.client.Do(req)
	require.NoError(f.t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(f.t, errors.Join(err, resp.Body.Close()))
	if f.host != "" {
		f.client.Jar.SetCookies(&url.URL{Scheme: "https", Host: at.Host, Path: "/"}, resp.Cookies())
	}
	require.Equal(f.t, "no-store", resp.Header.Get("Cache-Control"))
	require.Equal(f.t, "no-referrer", resp.Header.Get("Referrer-Policy"))
	require.Contains(f.t, resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'")
	return resp, string(body)
}

// visit opens an authorization URL at the provider, which consents, and returns where the browser is sent.
func (f *flow) visit(target string) string {
	f.t.Helper()
	resp, err := f.client.Get(target)
	require.NoError(f.t, err)
	require.NoError(f.t, resp.Body.Close())
	require.Equal(f.t, http.StatusSeeOther, resp.StatusCode)
	return resp.Header.Get("Location")
}

// begin goes from a new link to the callback's URL.
func (f *flow) begin(s *setup, org string) (link, callback string) {
	f.t.Helper()
	link, stderr, code := s.command(f.t, "connect-link", "graph", org)
	require.Equal(f.t, 0, code, stderr)
	link = strings.TrimSpace(link)
	resp, body := f.send(http.MethodPost, link)
	require.Equal(f.t, http.StatusSeeOther, resp.StatusCode, body)
	return link, f.visit(resp.Header.Get("Location"))
}

// What a request says of itself, in Host and in the headers of front ends, decides no address of ours: auth.public_url does.
func TestC14NoHeaderDecidesTheRedirectURI(t *testing.T) {
	const public = "https://bifrost.example.com/int"
	idp := authflowtest.New(t, authflowtest.Config{RedirectURIs: []string{public + "/oauth/callback/graph"}})
	s := newSetup(t, idp, func(s *setup, text string) string {
		return strings.Replace(text, "  operators:", "  public_url: "+public+"\n  operators:", 1)
	})
	r := s.start(t)
	f := s.flow(t, "evil.example")
	for name, value := range map[string]string{
		"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "666", "X-Forwarded-Prefix": "/evil", "X-Host": "evil.example",
		"Forwarded": "host=evil.example;proto=http", "X-Original-URL": "https://evil.example/", "X-Rewrite-URL": "/evil", "X-Forwarded-Server": "evil.example",
		"X-HTTP-Host-Override": "evil.example", "Origin": "https://bifrost.example.com", "X-Forwarded-For": "203.0.113.9",
	} {
		f.header.Set(name, value)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+s.auth+"/api/v1/integrations/graph/connections/acme/connect-link", nil)
	require.NoError(t, err)
	req.Host, req.Header = "evil.example", f.header.Clone()
	req.Header.Set("Authorization", "Bearer "+operatorToken)
	status, body := do(t, req)
	require.Equal(t, http.StatusOK, status, body)
	var made struct{ URL string }
	require.NoError(t, json.Unmarshal([]byte(body), &made))
	require.True(t, strings.HasPrefix(made.URL, public+"/oauth/connect/graph?ticket="), made.URL)

	link := "https://bifrost.example.com" + strings.TrimPrefix(made.URL, public) // what the front end, which strips /int, passes on
	resp, page := f.send(http.MethodGet, link)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Contains(t, page, `action="/int/oauth/connect/graph"`)
	require.NotContains(t, page, "evil")
	resp, page = f.send(http.MethodPost, link)
	require.Equal(t, http.StatusSeeOther, resp.StatusCode, page)
	require.Regexp(t, `^__Host-.*; Path=/; .*Secure`, resp.Header.Get("Set-Cookie"), "although this hop is plain http")
	asked, err := url.Parse(resp.Header.Get("Location"))
	require.NoError(t, err)
	require.Equal(t, []string{public + "/oauth/callback/graph"}, asked.Query()["redirect_uri"])
	resp, page = f.send(http.MethodGet, strings.Replace(f.visit(asked.String()), "/int/", "/", 1))
	require.Equal(t, http.StatusSeeOther, resp.StatusCode, page)
	require.True(t, strings.HasPrefix(resp.Header.Get("Location"), public+"/oauth/connect/graph/done?"), resp.Header.Get("Location"))
	require.Equal(t, public+"/oauth/callback/graph", idp.Posts()[0].Form.Get("redirect_uri"))
	require.NotContains(t, r.stderr.String(), "evil")

	for _, line := range []string{ // no Host, two, and another in the target
		"POST /oauth/connect/graph?ticket=x HTTP/1.0", "POST /oauth/connect/graph?ticket=x HTTP/1.1\r\nHost: a\r\nHost: evil.example",
		"POST https://evil.example/oauth/connect/graph?ticket=x HTTP/1.1\r\nHost: evil.example", "GET //evil.example/..%2f HTTP/1.1\r\nHost: evil.example",
		`GET /\evil.example HTTP/1.1` + "\r\nHost: evil.example", "GET /oauth//evil.example HTTP/1.1\r\nHost: evil.example",
	} {
		answer := rawAnswer(t, s.auth, line)
		require.Contains(t, []int{307, 400, 403, 404}, answer.StatusCode, line)
		require.Regexp(t, `^(/[^/\\].*)?$`, answer.Header.Get("Location"), line)
	}
}

// rawAnswer sends a request line with headers as they are.
func rawAnswer(t *testing.T, addr, lines string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "%s\r\nConnection: close\r\n\r\n", lines)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return resp
}

// Codes, states, tickets and results stand in URLs, and in no log, metric, page or Referer.
func TestC21WhatURLsHoldStaysThere(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{})
	s := newSetup(t, idp, nil) // at log.level debug
	r := s.start(t)
	f := s.flow(t, "")
	link, callback := f.begin(s, "acme")
	var shown strings.Builder
	see := func(resp *http.Response, body string) *http.Response { shown.WriteString(body); return resp }
	see(f.send(http.MethodGet, callback+"&code=twice"))
	see(s.flow(t, "").send(http.MethodGet, callback))
	done := see(f.send(http.MethodGet, callback))
	require.Equal(t, http.StatusSeeOther, done.StatusCode)
	result, err := url.Parse(done.Header.Get("Location"))
	require.NoError(t, err)
	require.Equal(t, []string{"result"}, slices.Collect(keysOf(result.Query())), "the callback leads to a URL without code and state")
	see(f.send(http.MethodGet, result.String()))
	see(f.send(http.MethodGet, callback))
	see(f.send(http.MethodGet, link))
	for _, path := range []string{"/oauth/callback/graph/x", "/oauth//callback/graph", "/oauth/callback/nobody", "/integrations", "/elsewhere"} {
		see(f.send(http.MethodGet, "http://"+s.auth+path+"?"+mustQuery(t, callback).Encode()))
	}
	_, metrics := fetch(t, "http://"+s.ops+"/metrics")
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))
	for name, secret := range map[string]string{
		"code": mustQuery(t, callback).Get("code"), "state": mustQuery(t, callback).Get("state"), "ticket": mustQuery(t, link).Get("ticket"),
		"result": result.Query().Get("result"), "verifier": idp.Posts()[0].Form.Get("code_verifier"),
	} {
		require.NotEmpty(t, secret)
		for place, text := range map[string]string{"stderr": r.stderr.String(), "pages": shown.String(), "metrics": metrics} {
			require.False(t, strings.Contains(text, secret), "%s in %s", name, place) // without either in the message
		}
	}
}

func keysOf(q url.Values) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range q {
			if !yield(name) {
				return
			}
		}
	}
}

func mustQuery(t *testing.T, raw string) url.Values {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Query()
}

// The address of the API comes from the configuration: what the token answer calls it gets no request, and no token.
func TestC8TheTokenAnswerNamesNoUpstreamToTheProxy(t *testing.T) {
	idp, hostile := authflowtest.New(t, authflowtest.Config{}), authflowtest.New(t, authflowtest.Config{})
	s := newSetup(t, idp, nil)
	s.start(t)
	idp.Misbehave(authflowtest.Behaviour{Rewrite: func(a *authflowtest.Answer) {
		for _, name := range []string{"instance_url", "api_domain", "base_url", "upstream", "shop", "location", "server", "token_url"} {
			authflowtest.Member(name, `"`+hostile.APIURL+`"`).Rewrite(a)
		}
	}})
	s.consent(t, "acme")
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
	_, stderr, code := s.command(t, "refresh", "graph", "acme")
	require.Equal(t, 0, code, stderr)
	require.Len(t, idp.Sightings(), 1)
	require.Empty(t, hostile.Sightings())
	require.Empty(t, hostile.Posts())
	require.Empty(t, hostile.Strays())
}

// Three listeners, and none serves another's paths: no consent ends at the proxy, and no credential is injected at the others.
func TestC28EachListenerServesItsOwnPathsAlone(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{})
	s := newSetup(t, idp, func(_ *setup, text string) string {
		return strings.NewReplacer("    scopes: read\n", "    scopes: read\n    expose_token: true\n    hosts: [graph.example.com]\n",
			`integrations: ["*"]}`, `integrations: ["*"], may_read_tokens: true}`).Replace(text)
	})
	s.start(t)
	s.connect(t, "acme")
	f := s.flow(t, "")
	link, callback := f.begin(s, "globex")
	flows := []string{uriOf(t, link), uriOf(t, callback), "/oauth/connect/graph/done?result=x", "/oauth/", "/oauth"}
	screens := []string{"/integrations", "/integrations/sign-in", "/integrations/graph/connect", "/api/v1/integrations", "/api/v1/integrations/graph/connections/acme", "/api/v1/backup"}
	operations := []string{"/metrics", "/healthz", "/readyz", "/debug/pprof/"}
	proxied := []string{"/graph/me", "/graph", "/_bifrost/v1/integrations/graph"}
	posts, sightings := len(idp.Posts()), len(idp.Sightings())
	for addr, foreign := range map[string][][]string{
		s.proxy: {flows, screens, operations}, s.auth: {proxied, operations}, s.ops: {flows, screens, proxied},
	} {
		for _, path := range slices.Concat(foreign...) {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
				for _, host := range []string{"", "127.0.0.1", "localhost:8081", "evil.example"} {
					req, err := http.NewRequest(method, "http://"+addr+path, nil)
					require.NoError(t, err)
					req.Host = host
					req.Header.Set("X-Bifrost-Key", callerKey)
					req.Header.Set("Authorization", "Bearer "+operatorToken)
					req.Header.Set("X-Org-ID", "acme")
					for _, cookie := range f.client.Jar.Cookies(&url.URL{Scheme: "http", Host: s.auth, Path: "/"}) {
						req.AddCookie(cookie)
					}
					status, body := do(t, req)
					require.Equal(t, http.StatusNotFound, status, "%s %s%s as %q: %s", method, addr, path, host, body)
				}
			}
		}
	}
	// A host of an integration's is one at the proxy alone.
	for addr, want := range map[string]int{s.proxy: http.StatusOK, s.auth: http.StatusNotFound, s.ops: http.StatusNotFound} {
		req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/me", nil)
		require.NoError(t, err)
		req.Host = "graph.example.com"
		req.Header.Set("X-Bifrost-Key", callerKey)
		req.Header.Set("X-Org-ID", "acme")
		status, body := do(t, req)
		require.Equal(t, want, status, body)
	}
	require.Len(t, idp.Posts(), posts, "no code went anywhere")
	require.Len(t, idp.Sightings(), sightings+1)
	resp, body := f.send(http.MethodGet, callback)
	require.Equal(t, http.StatusSeeOther, resp.StatusCode, "and none was spent: %s", body)
}

func uriOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.RequestURI()
}
