package authflow

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func TestNoRedirectToAnotherHostIsFollowed(t *testing.T) {
	var seen atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{301, 302, 303, 307, 308} {
		p := authflowtest.New(t, authflowtest.Config{})
		in, ep := integrationAt(p)
		ep.RevocationURL = ep.TokenURL // the endpoint that misbehaves
		p.MisbehaveAlways(authflowtest.Redirect(status, elsewhere.URL+"/token"))
		te := newTokenEndpoint(nil)
		for name, post := range everyPost {
			require.Equal(t, transient, post(t.Context(), t, te, p, in, ep).class, name)
		}
		require.Error(t, te.revoke(t.Context(), in, ep, "CANARY-token", "refresh_token"))
	}
	require.Zero(t, seen.Load())
}

// net/http reads the proxy of the environment once per process, so that a process of its own has it from the start.
func TestTokenEndpointsAreReachedWithoutAProxyOfTheEnvironment(t *testing.T) {
	child := exec.Command(os.Args[0], "-test.run=^TestTokenEndpointBehindAProxy$", "-test.v")
	child.Env = append(os.Environ(), "BEHIND_A_PROXY=yes", "NO_PROXY=", "no_proxy=")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		child.Env = append(child.Env, name+"=http://proxy.test:3128")
	}
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestTokenEndpointBehindAProxy")
}

// TestTokenEndpointBehindAProxy is the other process. It dials the provider whatever it is asked to dial.
func TestTokenEndpointBehindAProxy(t *testing.T) {
	if os.Getenv("BEHIND_A_PROXY") == "" {
		t.Skip("runs in a process of its own")
	}
	req, err := http.NewRequest(http.MethodPost, "http://login.test/token", nil)
	require.NoError(t, err)
	chosen, err := http.ProxyFromEnvironment(req)
	require.NoError(t, err)
	require.Equal(t, "proxy.test:3128", chosen.Host, "else the test shows nothing")

	p := authflowtest.New(t, authflowtest.Config{})
	in, ep := integrationAt(p)
	ep.TokenURL, ep.RevocationURL = "http://login.test/token", "http://login.test/revoke"
	var dialled []string
	transport := newTokenTransport()
	transport.DisableKeepAlives = true
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled = append(dialled, addr)
		return new(net.Dialer).DialContext(ctx, network, p.BaseURL[len("http://"):])
	}
	te := newTokenEndpoint(transport)
	require.Equal(t, granted, te.refresh(t.Context(), in, ep, p.Issue("alice", "users").Refresh).class)
	require.NoError(t, te.revoke(t.Context(), in, ep, p.Issue("alice", "users").Refresh, "refresh_token"))
	require.Equal(t, []string{"login.test:80", "login.test:80"}, dialled)
}
