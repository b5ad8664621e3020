package authflow

import (
	"bytes"
	"context"
	"crypto/tls"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

var acme = tokenstore.Slot{Integration: "Graph", Org: "acme"}

// consentEnv is a Broker behind a real listener, a provider, and a store that can be made to fail.
type consentEnv struct {
	t        *testing.T
	provider *authflowtest.Provider
	store    *faultyStore
	broker   *Broker
	handler  http.Handler // what the listener serves; may be replaced
	public   string
	logs     *lockedBuffer
	graph    *Integration
	audited  auditTrail
	revokes  bool
}

// consentSetup says how an env differs from the usual one.
type consentSetup struct {
	provider authflowtest.Config
	change   func(*Integration)
	tls      bool
	prefix   string       // path of the public URL, which the listener does not see
	store    *faultyStore // shared with another env
	revokes  bool         // the provider has a revocation endpoint
}

func newConsentEnv(t *testing.T, setup consentSetup) *consentEnv {
	t.Helper()
	e := &consentEnv{t: t, store: setup.store, logs: &lockedBuffer{}, revokes: setup.revokes}
	if e.store == nil {
		e.store = newFaultyStore(t)
	}
	e.provider = authflowtest.New(t, setup.provider)
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.handler.ServeHTTP(w, r) })
	srv := httptest.NewUnstartedServer(http.StripPrefix(setup.prefix, serve))
	if setup.tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	e.public = srv.URL + setup.prefix
	e.graph = e.integration("Graph")
	if setup.change != nil {
		setup.change(e.graph)
	}
	e.broker = e.newBroker(e.store)
	e.handler = e.broker.Handler()
	return e
}

func (e *consentEnv) integration(name string) *Integration {
	return &Integration{
		Name: name, Description: "The <users> API", ClientID: e.provider.ClientID(), ClientSecret: e.provider.ClientSecret,
		Scopes: []string{"offline_access", "Users.Read"}, Fallback: true,
		Resolve: func(tokenstore.Org) (Endpoints, error) {
			ep := Endpoints{AuthorizationURL: e.provider.AuthorizationURL, TokenURL: e.provider.TokenURL}
			if e.revokes {
				ep.RevocationURL = e.provider.RevocationURL
			}
			return ep, nil
		},
	}
}

func (e *consentEnv) newBroker(store tokenstore.Backend) *Broker {
	e.t.Helper()
	b, err := New(Config{
		Store: store, PublicURL: e.public, Metrics: prometheus.NewRegistry(),
		Integrations: []*Integration{e.graph, e.integration("Other")},
		Log:          slog.New(slog.NewJSONHandler(e.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Audit:        e.audited.add,
	})
	require.NoError(e.t, err)
	return b
}

func (e *consentEnv) link() string {
	e.t.Helper()
	link, err := e.broker.ConnectLink(e.t.Context(), acme, "ops", 0)
	require.NoError(e.t, err)
	return link.URL
}

// exchanges is how many codes have been POSTed.
func (e *consentEnv) exchanges() int { return e.provider.Count("authorization_code") }

func (e *consentEnv) count(result string) int {
	return int(testutil.ToFloat64(e.broker.metrics.callbacks.WithLabelValues("Graph", result)))
}

func (e *consentEnv) stored(slot tokenstore.Slot) *tokenstore.Record {
	e.t.Helper()
	rec, err := e.store.Get(e.t.Context(), slot)
	if err != nil {
		require.ErrorIs(e.t, err, tokenstore.ErrNotFound)
		return nil
	}
	return rec
}

func (e *consentEnv) pending() bool {
	e.t.Helper()
	found, err := e.store.Peek(e.t.Context(), pendingID(acme))
	require.NoError(e.t, err)
	return found[0] != nil
}

// browser has cookies of its own and follows no redirect unasked.
type browser struct {
	t      *testing.T
	e      *consentEnv
	client *http.Client
}

func (e *consentEnv) newBrowser() *browser {
	jar, _ := cookiejar.New(nil) // fails never
	return &browser{e.t, e, &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}, // the test server's own
	}}
}

// seen is an answer as a browser saw it.
type seen struct {
	status   int
	location string
	body     string
	header   http.Header
}

func (b *browser) do(method, target string, form url.Values, header ...string) seen {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(form.Encode()))
	require.NoError(b.t, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(req)
	require.NoError(b.t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(b.t, err)
	require.Equal(b.t, "no-store", resp.Header.Get("Cache-Control"), "on every answer")
	require.Equal(b.t, "no-referrer", resp.Header.Get("Referrer-Policy"), "on every answer")
	require.Contains(b.t, resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'", "on every answer")
	_, visible, _ := strings.Cut(string(body), "</head>")
	return seen{resp.StatusCode, resp.Header.Get("Location"), html.UnescapeString(visible), resp.Header}
}

func (b *browser) get(target string) seen { b.t.Helper(); return b.do(http.MethodGet, target, nil) }

var formPattern = regexp.MustCompile(`(?s)<form method="post" action="([^"]*)">.*?name="ticket" value="([^"]*)"`)

// click opens a connect link, submits the form as a browser does and returns where it is sent.
func (b *browser) click(link string) string {
	b.t.Helper()
	page := b.get(link)
	require.Equal(b.t, http.StatusOK, page.status)
	form := formPattern.FindStringSubmatch(page.body)
	require.NotNil(b.t, form, "the page has the form")
	at, err := url.Parse(link)
	require.NoError(b.t, err)
	target := at.ResolveReference(&url.URL{Path: form[1]}).String()
	sent := b.do(http.MethodPost, target, url.Values{"ticket": {form[2]}}, "Sec-Fetch-Site", "same-origin", "Origin", "null")
	require.Equal(b.t, http.StatusSeeOther, sent.status, sent.body)
	return sent.location
}

// consent goes from the link to the callback's URL, which the provider has sent the browser to but which is not opened yet.
func (b *browser) consent(link string) string {
	b.t.Helper()
	callback, err := b.e.provider.Visit(b.click(link))
	require.NoError(b.t, err)
	return callback.String()
}

// with returns the URL with parameters of its query set; an empty value removes one.
func with(t *testing.T, raw string, pairs ...string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	q := u.Query()
	for i := 0; i < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		}
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// faultyStore is a store of which any operation of the shelf, or any write of a record, can be made to fail.
type faultyStore struct {
	tokenstore.Backend
	mu   sync.Mutex // guards fail
	fail func(op, id string) error
}

func newFaultyStore(t *testing.T) *faultyStore {
	t.Helper()
	return &faultyStore{Backend: storetest.OpenFile(t)}
}

// unavailable matches operations whose "op id" begins with prefix.
func unavailable(prefix string) func(op, id string) error {
	return func(op, id string) error {
		if strings.HasPrefix(op+" "+id, prefix) {
			return tokenstore.ErrUnavailable
		}
		return nil
	}
}

// failing makes what match returns an error for fail, until it is called again; nil: nothing fails.
func (s *faultyStore) failing(match func(op, id string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = match
}

func (s *faultyStore) check(op, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		return nil
	}
	return s.fail(op, id)
}

func (s *faultyStore) Put(ctx context.Context, id string, value []byte, life time.Duration) error {
	if err := s.check("put", id); err != nil {
		return err
	}
	return s.Backend.Put(ctx, id, value, life)
}

func (s *faultyStore) Take(ctx context.Context, id string) ([]byte, error) {
	if err := s.check("take", id); err != nil {
		return nil, err
	}
	return s.Backend.Take(ctx, id)
}

func (s *faultyStore) Peek(ctx context.Context, ids ...string) ([][]byte, error) {
	if err := s.check("peek", ids[0]); err != nil {
		return nil, err
	}
	return s.Backend.Peek(ctx, ids...)
}

func (s *faultyStore) Save(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) error {
	if err := s.check("save", slot.String()); err != nil {
		return err
	}
	return s.Backend.Save(ctx, slot, rec, prev)
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
