package proxy

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// warm is a proxy with caller key, org, metrics and a real Broker, which has been here for a while. What benchmarks and tests say of
// it they say against a bare httputil.ReverseProxy with the same transport and buffers.
type warm struct {
	orgs   int
	log    bool           // one line per request
	shared bool           // others write to the store too
	roots  *x509.CertPool // trusted of the upstream
	store  *prometheus.Registry
}

// warmProxy is the proxy that set describes; every org of it has been here before.
func warmProxy(t testing.TB, upstream string, set warm) *Proxy {
	t.Helper()
	p, err := New(Config{
		Broker:      warmBroker(t, set),
		Callers:     []Caller{{Name: "workflows", Key: func() string { return callerKey }, Orgs: []string{"*"}, Integrations: []string{"*"}}},
		Log:         slog.New(slog.NewJSONHandler(io.Discard, nil)),
		LogRequests: set.log,
		Metrics:     NewMetrics(prometheus.NewRegistry()),
		Routes: []Route{{Integration: "Microsoft_Graph", Prefix: "/graph", RootCAs: set.roots, Target: func(tokenstore.Org) (Target, error) {
			return Target{BaseURL: upstream}, nil
		}}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	for range 2 { // the Broker moves a newcomer to where it finds it without a lock when it has been asked for again
		for i := range set.orgs {
			slot := tokenstore.Slot{Integration: "Microsoft_Graph", Org: warmOrg(i)}
			_, err := p.broker.Token(t.Context(), slot)
			require.NoError(t, err)
		}
	}
	return p
}

func warmOrg(i int) tokenstore.Org { return tokenstore.Org(fmt.Sprint("org-", 7+i)) }

// warmBroker is a Broker over a file store that has a connection of every org in memory.
func warmBroker(t testing.TB, set warm) *authflow.Broker {
	t.Helper()
	provider := authflowtest.InMemory(t, authflowtest.Config{Lifetime: 24 * time.Hour})
	cfg := tokenstore.FileConfig{Path: filepath.Join(t.TempDir(), "bifrost.db"), Keys: storetest.Keys(t)}
	if set.store != nil {
		cfg.Metrics = set.store
	}
	store, err := tokenstore.OpenFile(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	broker, err := authflow.New(authflow.Config{
		Store: store,
		Alone: !set.shared,
		Integrations: []*authflow.Integration{{
			Name: "Microsoft_Graph", ClientID: provider.ClientID(), ClientSecret: provider.ClientSecret, Fallback: true,
			Resolve: func(tokenstore.Org) (authflow.Endpoints, error) {
				return authflow.Endpoints{TokenURL: provider.TokenURL}, nil
			},
		}},
		PublicURL: "https://bifrost.test",
		Transport: provider.Transport(),
		Metrics:   prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	for i := range set.orgs {
		slot := tokenstore.Slot{Integration: "Microsoft_Graph", Org: warmOrg(i)}
		_, err := broker.Import(t.Context(), slot, provider.Issue(string(slot.Org)).Refresh, "bench")
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, broker.Wait(context.Background())) })
	return broker
}

// bareProxy is httputil alone.
func bareProxy(t testing.TB, upstream string, roots *x509.CertPool) http.Handler {
	t.Helper()
	transport := newTransport(Route{RootCAs: roots})
	t.Cleanup(transport.CloseIdleConnections)
	return bareOver(t, upstream, transport)
}

func bareOver(t testing.TB, upstream string, transport http.RoundTripper) http.Handler {
	t.Helper()
	base, err := url.Parse(upstream)
	require.NoError(t, err)
	return http.StripPrefix("/graph", &httputil.ReverseProxy{
		Rewrite:    func(pr *httputil.ProxyRequest) { pr.SetURL(base) },
		Transport:  transport,
		BufferPool: &plainPool{},
	})
}

// plainPool is the pool of a bare httputil.ReverseProxy.
type plainPool struct{ buffers }

func (p *plainPool) Get() []byte    { return p.get(false) }
func (p *plainPool) Put(buf []byte) { p.put(buf) }

// discard is a ResponseWriter that costs as little as one can.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

// warmRequest is a small GET of one of the orgs.
func warmRequest(t testing.TB, org int) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/graph/v1.0/users?$top=5", nil)
	r.Header.Set("Authorization", "Bearer "+callerKey)
	r.Header.Set("X-Org-ID", string(warmOrg(org)))
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "workflows/1.0")
	return r
}

// expectServed has h serve r, and the upstream say 200.
func expectServed(t testing.TB, h http.Handler, r *http.Request) {
	w := &discard{header: make(http.Header)}
	if h.ServeHTTP(w, r); w.status != http.StatusOK {
		t.Errorf("%d %s", w.status, w.header)
	}
}

// rootsOf trusts a server with TLS; nil for one without.
func rootsOf(s *httptest.Server) *x509.CertPool {
	if s.Certificate() == nil {
		return nil
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return roots
}
