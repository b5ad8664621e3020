package proxy

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// detour is a server that nothing may reach, and the count of what did.
func detour(t *testing.T) (string, *atomic.Int64) {
	t.Helper()
	seen := new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	t.Cleanup(srv.Close)
	return srv.URL, seen
}

// net/http reads the proxy of the environment once per process, so that a process of its own has it from the start.
func TestNoProxyOfTheEnvironmentIsUsed(t *testing.T) {
	address, seen := detour(t)
	child := exec.Command(os.Args[0], "-test.run=^TestBehindAProxy$", "-test.v")
	child.Env = append(os.Environ(), "BEHIND_A_PROXY="+address, "NO_PROXY=", "no_proxy=")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		child.Env = append(child.Env, name+"="+address)
	}
	out, err := child.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestBehindAProxy")
	require.EqualValues(t, 1, seen.Load(), "the request that is meant to be seen")
}

// TestBehindAProxy is the other process of TestNoProxyOfTheEnvironmentIsUsed.
func TestBehindAProxy(t *testing.T) {
	address := os.Getenv("BEHIND_A_PROXY")
	if address == "" {
		t.Skip("runs in a process of its own")
	}
	request, err := http.NewRequest(http.MethodGet, "http://example.com/", nil)
	require.NoError(t, err)
	chosen, err := http.ProxyFromEnvironment(request)
	require.NoError(t, err)
	require.Equal(t, address, chosen.String(), "else the test shows nothing")
	res, err := (&http.Transport{Proxy: http.ProxyURL(chosen), DisableKeepAlives: true}).RoundTrip(request)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())

	_, resolver := resolveTo(t, addrs("127.0.0.1"))
	for _, secure := range []bool{false, true} {
		changes := []change{under("example.com", resolver, "127.0.0.1/32")}
		if secure {
			changes = append([]change{overTLS(true)}, changes...)
		}
		b := start(t, nil, changes...)
		res, _ := b.get(t, "/graph/x")
		require.Equal(t, 200, res.StatusCode)
		require.Len(t, b.requests(), 1)
	}
}

func TestRedirectsToAnotherHostAreForTheCallerToFollow(t *testing.T) {
	address, seen := detour(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		b := start(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, address+"/signed?for=you", status) })
		for _, method := range []string{"GET", "POST"} {
			res, _ := b.do(t, b.request(t, method, "/graph/content", ""))
			require.Equal(t, status, res.StatusCode)
			require.Equal(t, address+"/signed?for=you", res.Header.Get("Location"))
		}
		require.Len(t, b.requests(), 2)
	}
	require.Zero(t, seen.Load())
}
