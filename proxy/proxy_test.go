package proxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const callerKey = "CANARY-caller-key"

// fakeBroker answers with funcs; without them every org has a token of its own that names it.
type fakeBroker struct {
	token   func(context.Context, tokenstore.Slot) (authflow.Credential, error)
	later   atomic.Pointer[func(context.Context, tokenstore.Slot) (authflow.Credential, error)] // instead of token; see answer
	replace func(context.Context, authflow.Credential) (authflow.Credential, error)
	asked   atomic.Int64
}

func (b *fakeBroker) Token(ctx context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
	b.asked.Add(1)
	if later := b.later.Load(); later != nil {
		return (*later)(ctx, slot)
	}
	if b.token != nil {
		return b.token(ctx, slot)
	}
	return authflow.NewCredential(slot, tokenOf(slot.Org)), nil
}

// answer changes what Token returns while requests are under way.
func (b *fakeBroker) answer(token func(context.Context, tokenstore.Slot) (authflow.Credential, error)) {
	b.later.Store(&token)
}

func (b *fakeBroker) Replace(ctx context.Context, rejected authflow.Credential) (authflow.Credential, error) {
	if b.replace != nil {
		return b.replace(ctx, rejected)
	}
	return authflow.Credential{}, authflow.ErrProvider
}

func tokenOf(org tokenstore.Org) string { return "Bearer CANARY-token-" + string(org) }

// seen is one request as an upstream got it.
type seen struct {
	*http.Request
	body string
}

// bench is a proxy between real sockets: an upstream that records, and a listener.
type bench struct {
	proxy    *Proxy
	broker   *fakeBroker
	upstream *httptest.Server
	front    *httptest.Server
	logs     *syncBuffer
	registry *prometheus.Registry

	mu  sync.Mutex // guards got
	got []seen
}

// change adjusts a bench's configuration before New.
type change func(*bench, *Config, *Route)

// underBase puts the upstream's API under a path.
func underBase(base string) change {
	return func(b *bench, _ *Config, r *Route) {
		r.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: b.upstream.URL + base}, nil }
	}
}

// onRoute adjusts the route alone.
func onRoute(f func(*Route)) change { return func(_ *bench, _ *Config, r *Route) { f(r) } }

// onConfig adjusts the configuration alone.
func onConfig(f func(*Config)) change { return func(_ *bench, c *Config, _ *Route) { f(c) } }

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start serves handler (nil: 200 "ok") behind a proxy with one route /graph.
func start(t *testing.T, handler http.HandlerFunc, changes ...change) *bench {
	t.Helper()
	b := &bench{broker: &fakeBroker{}, logs: &syncBuffer{}, registry: prometheus.NewRegistry()}
	b.upstream = httptest.NewServer(b.record(handler))
	t.Cleanup(b.upstream.Close)
	b.serve(t, changes...)
	return b
}

func (b *bench) record(handler http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		if handler == nil {
			body, _ = io.ReadAll(r.Body) // what is missing shows in the assertion
		}
		b.mu.Lock()
		b.got = append(b.got, seen{r, string(body)})
		b.mu.Unlock()
		if handler != nil {
			handler(w, r)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
}

func (b *bench) serve(t *testing.T, changes ...change) {
	t.Helper()
	route := Route{Integration: "Microsoft_Graph", Prefix: "/graph"}
	route.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: b.upstream.URL}, nil }
	cfg := Config{
		Broker:      b.broker,
		Callers:     []Caller{{Name: "workflows", Key: func() string { return callerKey }, Orgs: []string{"*", "@global"}, Integrations: []string{"*"}}},
		Log:         slog.New(slog.NewJSONHandler(b.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		LogRequests: true,
		Metrics:     NewMetrics(b.registry),
	}
	for _, apply := range changes {
		apply(b, &cfg, &route)
	}
	cfg.Routes = append(cfg.Routes, route)
	var err error
	b.proxy, err = New(cfg)
	require.NoError(t, err)
	b.front = httptest.NewUnstartedServer(b.proxy)
	b.front.Config.DisableGeneralOptionsHandler = true // as the proxy listener has it
	b.front.Start()
	t.Cleanup(func() {
		b.front.Close()
		require.NoError(t, b.proxy.Close())
	})
}

func (b *bench) requests() []seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]seen(nil), b.got...)
}

// last returns the one request that the upstream got.
func (b *bench) last(t *testing.T) seen {
	t.Helper()
	got := b.requests()
	require.NotEmpty(t, got, "the upstream got nothing")
	return got[len(got)-1]
}

// request makes a request of the caller for org acme; header lines are "Name: value", one with an empty value is removed.
func (b *bench) request(t *testing.T, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, b.front.URL+target, rd)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+callerKey)
	r.Header.Set("X-Org-ID", "acme")
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Set(name, value)
	}
	return r
}

// do sends without following redirects and returns the answer with its body read.
func (b *bench) do(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := b.front.Client().Transport.RoundTrip(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

func (b *bench) get(t *testing.T, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	return b.do(t, b.request(t, "GET", target, "", headers...))
}

func TestARequestReachesItsUpstreamWithItsOwnOrgsToken(t *testing.T) {
	b := start(t, nil)
	res, body := b.get(t, "/graph/v1.0/users?$top=5")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "ok", body)
	require.Equal(t, "org", res.Header.Get("X-Bifrost-Connection"))
	require.Empty(t, res.Header.Get("X-Bifrost-Error"))
	got := b.last(t)
	require.Equal(t, "/v1.0/users?$top=5", got.RequestURI)
	require.Equal(t, []string{tokenOf("acme")}, got.Header["Authorization"])
	require.Equal(t, strings.TrimPrefix(b.upstream.URL, "http://"), got.Host)
	require.NotContains(t, b.logs.String(), "CANARY")
}

func TestTheCredentialDecidesUpstreamHeadersAndAnswer(t *testing.T) {
	b := start(t, nil, func(b *bench, _ *Config, r *Route) {
		r.Target = func(org tokenstore.Org) (Target, error) {
			return Target{BaseURL: b.upstream.URL + "/" + string(org), Headers: map[string]string{"x-tenant": string(org)}}, nil
		}
	})
	b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
		slot.Org = tokenstore.Global
		return authflow.NewCredential(slot, tokenOf("global")), nil
	}
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, "global", res.Header.Get("X-Bifrost-Connection"))
	require.Equal(t, tokenOf("global"), b.last(t).Header.Get("Authorization"))
	require.Equal(t, "@global", b.last(t).Header.Get("X-Tenant"))
	require.Equal(t, "/@global/x", b.last(t).RequestURI)
}

func TestACredentialOfAnotherOrgIsNeverSent(t *testing.T) {
	b := start(t, nil)
	b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
		slot.Org = "globex"
		return authflow.NewCredential(slot, tokenOf("globex")), nil
	}
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "record_unreadable", res.Header.Get("X-Bifrost-Error"))
	require.Empty(t, b.requests())
}
