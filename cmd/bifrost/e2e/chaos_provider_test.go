package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// chaosProvider is the provider behind a gate that takes down who POSTs what and when, and sends it on through the poster's
// link. What the gate receives and the provider does not, the link has lost.
type chaosProvider struct {
	*authflowtest.Provider
	outside string // base URL of the gate
	inside  string // address of the provider, for the links

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	ways   map[string]*http.Client // to the provider, by node
	posts  []*chaosPost
}

// chaosPost is one POST of a refresh token.
type chaosPost struct {
	number     int
	org, node  string
	token      string // that was POSTed
	generation int    // of that token at the provider

	began     time.Time
	processed time.Time // zero: it never arrived at the provider
	status    int       // of the provider's answer
	fresh     string    // refresh token in the answer
	ended     time.Time // zero: not yet
	delivered bool      // the answer was written to the poster's connection
}

func newChaosProvider(t *testing.T, random *rand.Rand) *chaosProvider {
	t.Helper()
	p := &chaosProvider{random: random, ways: map[string]*http.Client{}}
	p.Provider = authflowtest.NewProvider(authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: tokenLife})
	t.Cleanup(p.Close)
	inside := httptest.NewServer(http.HandlerFunc(p.process))
	t.Cleanup(inside.Close)
	p.inside = inside.Listener.Addr().String()
	gate := httptest.NewServer(http.HandlerFunc(p.pass))
	t.Cleanup(gate.Close)
	p.outside = gate.URL
	return p
}

// reach lets the gate reach the provider for a node by its link.
func (p *chaosProvider) reach(node, link string) {
	p.ways[node] = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, link)
		},
	}}
}

// pass is the gate.
func (p *chaosProvider) pass(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" || r.ParseForm() != nil || p.ways[r.PostForm.Get("node")] == nil {
		http.NotFound(w, r)
		return
	}
	post := p.arrive(r.PostForm)
	resp, err := p.send(r.Context(), post, r.PostForm)
	if err != nil {
		p.ended(post, false)
		panic(http.ErrAbortHandler) // the poster's connection breaks, too
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.ended(post, false)
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, err = w.Write(body)
	p.ended(post, err == nil && r.Context().Err() == nil)
}

func (p *chaosProvider) arrive(form url.Values) *chaosPost {
	token, _ := p.Lookup(form.Get("refresh_token"))
	p.mu.Lock()
	defer p.mu.Unlock()
	post := &chaosPost{
		number: len(p.posts), org: token.User, node: form.Get("node"), token: form.Get("refresh_token"),
		generation: token.Generation, began: time.Now(),
	}
	p.posts = append(p.posts, post)
	return post
}

const postNumber = "Chaos-Post"

func (p *chaosProvider) send(ctx context.Context, post *chaosPost, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.inside+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set(postNumber, strconv.Itoa(post.number))
	req.GetBody = nil // not sent twice, whatever the transport thinks
	return p.ways[post.node].Do(req)
}

func (p *chaosProvider) ended(post *chaosPost, delivered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	post.ended, post.delivered = time.Now(), delivered
}

// process is the provider: it takes its time before and after, seldom much of it, and processes also what nobody waits for any
// more.
func (p *chaosProvider) process(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(r.Header.Get(postNumber))
	if err != nil || r.ParseForm() != nil {
		http.NotFound(w, r)
		return
	}
	p.mu.Lock()
	before, after := p.delayLocked(), p.delayLocked()
	post := p.posts[number]
	p.mu.Unlock()
	<-time.After(before)
	answer := httptest.NewRecorder()
	p.ServeHTTP(answer, r)
	var got struct {
		RefreshToken string `json:"refresh_token"`
	}
	_ = json.Unmarshal(bytes.TrimSpace(answer.Body.Bytes()), &got) // a refusal has none
	p.mu.Lock()
	post.processed, post.status, post.fresh = time.Now(), answer.Code, got.RefreshToken
	p.mu.Unlock()
	<-time.After(after)
	maps.Copy(w.Header(), answer.Header())
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // the poster may have gone
}

func (p *chaosProvider) delayLocked() time.Duration {
	if p.random.IntN(100) == 0 {
		return time.Duration(p.random.IntN(500)) * time.Millisecond
	}
	return time.Duration(p.random.IntN(15)) * time.Millisecond
}

// chaosUpstream is an API that looks closely at each token.
type chaosUpstream struct {
	url string

	mu      sync.Mutex // guards what follows
	foreign []string   // requests with a token of another org
	stale   int        // requests with a token that is not alive
}

func newChaosUpstream(t *testing.T, idp *authflowtest.Provider) *chaosUpstream {
	t.Helper()
	u := &chaosUpstream{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		token, known := idp.Lookup(value)
		org := strings.TrimPrefix(r.URL.Path, "/me/")
		u.mu.Lock()
		defer u.mu.Unlock()
		switch {
		case !known || token.Kind != authflowtest.Access || token.User != org:
			u.foreign = append(u.foreign, org+" with a token of "+token.User)
			w.WriteHeader(http.StatusTeapot)
		case !token.Alive:
			u.stale++
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(srv.Close)
	u.url = srv.URL
	require.NotEmpty(t, u.url)
	return u
}
