package authflow_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// world is a provider, a store and any number of replicas, under fake time.
type world struct {
	*testing.T
	provider         *authflowtest.Provider
	store            *moody
	integration      authflow.Integration
	*authflow.Broker // the first replica
	metrics          *prometheus.Registry
	logs             *journal                     // of all replicas
	elsewhere        map[string]http.RoundTripper // other hosts than the provider's
	alone            bool
	audited          events // of all replicas
}

// RoundTrip implements [http.RoundTripper]: the network.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	if there := w.elsewhere[r.URL.Host]; there != nil {
		return there.RoundTrip(r)
	}
	return w.provider.Transport().RoundTrip(r)
}

// settings change what a world starts from; nil leaves it.
type settings struct {
	provider    authflowtest.Config
	integration func(*authflow.Integration)
	alone       bool // nobody else writes to the store
}

// inWorld runs test in a bubble of fake time, with one replica that does not sweep.
func inWorld(t *testing.T, s settings, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, provider: authflowtest.NewProvider(s.provider), logs: &journal{}, alone: s.alone}
		t.Cleanup(w.provider.Close)
		secret := w.provider.ClientSecret()
		w.store = &moody{Backend: storetest.OpenFile(t)}
		w.integration = authflow.Integration{
			Name:         "graph",
			ClientID:     w.provider.ClientID(),
			ClientSecret: func() string { return secret },
			Scopes:       []string{"read"},
			Fallback:     true,
			Resolve: func(tokenstore.Org) (authflow.Endpoints, error) {
				return authflow.Endpoints{
					AuthorizationURL: w.provider.AuthorizationURL,
					TokenURL:         w.provider.TokenURL,
					RevocationURL:    w.provider.RevocationURL,
				}, nil
			},
		}
		if s.integration != nil {
			s.integration(&w.integration)
		}
		w.Broker, w.metrics = w.replica()
		t.Cleanup(func() {
			w.store.down.Store(false)
			w.store.readOnly.Store(false)
			w.provider.Behave()
			require.NoError(t, w.Wait(context.Background()))
		})
		test(t, w)
	})
}

// replica starts another Broker on the same store.
func (w *world) replica() (*authflow.Broker, *prometheus.Registry) {
	w.Helper()
	reg := prometheus.NewRegistry()
	b, err := authflow.New(authflow.Config{
		Store:        w.store,
		Alone:        w.alone,
		Integrations: []*authflow.Integration{&w.integration},
		PublicURL:    "https://bifrost.test",
		Transport:    w,
		Metrics:      reg,
		Log:          slog.New(slog.NewJSONHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Audit:        w.audited.add,
	})
	require.NoError(w, err)
	w.Cleanup(func() { require.NoError(w, b.Wait(context.Background())) })
	return b, reg
}

// sweep has the replica run until the test ends.
func (w *world) sweep(b *authflow.Broker) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Run(ctx)
	}()
	w.Cleanup(func() {
		stop()
		<-ended
	})
}

func slot(org tokenstore.Org) tokenstore.Slot {
	return tokenstore.Slot{Integration: "graph", Org: org}
}

// connect gives the org a grant of a user of the same name and returns the provider's id of it.
func (w *world) connect(org tokenstore.Org) string {
	w.Helper()
	issued := w.provider.Issue(string(org), "read")
	require.NoError(w, w.Consented(w.Context(), slot(org), issued.Access, issued.Refresh, issued.AccessExpires, issued.Scopes))
	return issued.Grant
}

// use asks for a token as a request does, and requires that it is a living one of exactly that org.
func (w *world) use(b *authflow.Broker, org tokenstore.Org) authflow.Credential {
	w.Helper()
	cred, err := b.Token(w.Context(), slot(org))
	require.NoError(w, err)
	w.alive(cred)
	return cred
}

// alive requires that the provider accepts the credential, as the org whose it says it is.
func (w *world) alive(cred authflow.Credential) authflowtest.Token {
	w.Helper()
	token := w.token(cred)
	require.True(w, token.Alive, "the provider refuses the token of generation %d", token.Generation)
	require.Equal(w, string(cred.Slot.Org), token.User)
	return token
}

func (w *world) token(cred authflow.Credential) authflowtest.Token {
	w.Helper()
	require.Greater(w, len(cred.Header()), len("Bearer "))
	token, known := w.provider.Lookup(cred.Header()[len("Bearer "):])
	require.True(w, known)
	return token
}

// status returns the connection's state as an operator sees it.
func (w *world) status(org tokenstore.Org) authflow.Connection {
	w.Helper()
	c, err := w.Connection(w.Context(), slot(org))
	require.NoError(w, err)
	return c
}

// posts counts refreshes at the provider from now on.
func (w *world) posts() func() int {
	before := w.provider.Count("refresh_token")
	return func() int { return w.provider.Count("refresh_token") - before }
}

// oncePerToken requires that no refresh token was POSTed twice.
func (w *world) oncePerToken() {
	w.Helper()
	for _, n := range w.provider.Refreshes() {
		require.Equal(w, 1, n, "a refresh token was POSTed more than once")
	}
	require.Empty(w, w.provider.Reuses())
}

// edit changes the stored record behind the Broker's back.
func (w *world) edit(org tokenstore.Org, change func(*tokenstore.Record)) {
	w.Helper()
	rec, err := w.store.Backend.Get(w.Context(), slot(org))
	require.NoError(w, err)
	prev := rec.Version()
	change(rec)
	require.NoError(w, w.store.Backend.Save(w.Context(), slot(org), rec, prev))
	pass(5 * time.Second) // until no replica believes what it knew
}

func (w *world) metric(name string) float64 {
	w.Helper()
	families, err := w.metrics.Gather()
	require.NoError(w, err)
	for _, f := range families {
		if f.GetName() == name {
			require.Len(w, f.GetMetric(), 1)
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	n, err := testutil.GatherAndCount(w.metrics)
	w.Fatalf("no metric %s among %d (%v)", name, n, err)
	return 0
}

// refreshes returns how often the first replica counted that result.
func (w *world) refreshes(result string) (n float64) {
	families, err := w.metrics.Gather()
	require.NoError(w, err)
	for _, f := range families {
		if f.GetName() != "bifrost_token_refreshes_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetValue() == result {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// pass lets fake time pass.
func pass(d time.Duration) { time.Sleep(d) }

// journal is a log that several goroutines write.
type journal struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
