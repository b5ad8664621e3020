package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const sigTerm = syscall.SIGTERM

// slowUpstream answers once release is closed, and tells on arrived that a request is there.
func slowUpstream(t *testing.T) (url string, arrived, release chan struct{}) {
	t.Helper()
	arrived, release = make(chan struct{}, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		_, _ = w.Write([]byte("done")) // the client may have gone
	}))
	t.Cleanup(server.Close)
	return server.URL, arrived, release
}

func upstreamOf(url string) func(*setup, string) string {
	return func(s *setup, text string) string {
		return strings.Replace(text, "upstream: "+s.idp.BaseURL+"/api", "upstream: "+url, 1)
	}
}

type answered struct {
	status int
	body   string
}

// callBehind makes a request through the proxy on a goroutine that ends with it.
func (r *running) callBehind(t *testing.T) <-chan answered {
	t.Helper()
	answers := make(chan answered, 1)
	go func() {
		status, body := r.call(t, "acme", "/graph/slow")
		answers <- answered{status, body}
	}()
	return answers
}

func TestSIGTERMLetsARequestInFlightFinish(t *testing.T) {
	url, arrived, release := slowUpstream(t)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), upstreamOf(url))
	r := s.start(t)
	s.connect(t, "acme")
	answers := r.callBehind(t)
	<-arrived

	r.signal(t, sigTerm)
	require.Eventually(t, func() bool {
		status, body := fetch(t, "http://"+s.ops+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, `"stopping"`)
	}, patience, pollTime, "readyz must turn while requests drain")
	require.Eventually(t, func() bool {
		status, _ := fetch(t, "http://"+s.proxy+"/graph/late")
		return status == 0
	}, patience, pollTime, "no new request is taken")
	status, _ := fetch(t, "http://"+s.auth+"/integrations")
	require.NotZero(t, status, "the auth listener closes after the proxy")
	status, _ = fetch(t, "http://"+s.ops+"/healthz")
	require.Equal(t, http.StatusOK, status)

	close(release)
	require.Equal(t, answered{http.StatusOK, "done"}, <-answers)
	require.Equal(t, 0, r.exit(t))
	require.Contains(t, r.stderr.String(), "bifrost has stopped")
}

func TestDrainTimeoutCutsARequestThatDoesNotFinish(t *testing.T) {
	url, arrived, _ := slowUpstream(t)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		return strings.Replace(upstreamOf(url)(s, text), "proxy: {", "proxy: {drain_timeout: 100ms, ", 1)
	})
	r := s.start(t)
	s.connect(t, "acme")
	answers := r.callBehind(t)
	<-arrived
	r.signal(t, sigTerm)
	require.Equal(t, 0, r.exit(t))
	require.Contains(t, r.stderr.String(), "requests were cut")
	require.Zero(t, (<-answers).status)
}

func TestDrainDelayKeepsServingAfterReadinessTurned(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.Replace(text, "proxy: {", "proxy: {drain_delay: 1h, ", 1)
	})
	r := s.start(t)
	s.connect(t, "acme")
	r.signal(t, sigTerm)
	require.Eventually(t, func() bool {
		status, _ := fetch(t, "http://"+s.ops+"/readyz")
		return status == http.StatusServiceUnavailable
	}, patience, pollTime)
	status, body := s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)

	r.signal(t, sigTerm)
	require.NotZero(t, r.exit(t), "a second signal ends at once, and says that it was not clean")
}

// TestSIGTERMWaitsForARefreshInFlight: the provider has used up the old refresh token before it answers, so whoever ends
// the process then has lost the connection unless the answer is stored.
func TestSIGTERMWaitsForARefreshInFlight(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	s := newSetup(t, idp, func(_ *setup, text string) string {
		return strings.Replace(text, "scopes: read", "scopes: read\n    refresh_tokens: one_time", 1)
	})
	r := s.start(t)
	s.connect(t, "acme")

	gate := authflowtest.NewGate()
	idp.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
	ctx, hangUp := context.WithCancel(t.Context())
	asked := exec.CommandContext(ctx, binary, "refresh", "graph", "acme")
	asked.Env = s.environ()
	require.NoError(t, asked.Start())
	<-gate.Arrived()
	hangUp() // nobody waits for this refresh any more but bifrost itself
	require.Error(t, asked.Wait())

	r.signal(t, sigTerm)
	require.Eventually(t, func() bool { status, _ := fetch(t, "http://"+s.proxy+"/"); return status == 0 }, patience, pollTime)
	require.Never(t, func() bool {
		status, _ := fetch(t, "http://"+s.auth+"/integrations")
		return status == 0 || r.hasEnded()
	}, 300*time.Millisecond, pollTime, "the auth listener closes, and bifrost ends, after the refresh")
	gate.Release()
	require.Equal(t, 0, r.exit(t))

	s.start(t)
	status, _, code := s.command(t, "refresh", "graph", "acme")
	require.Zero(t, code, status)
	require.Empty(t, idp.Reuses())
}
