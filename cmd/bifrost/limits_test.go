package main

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/proxy"
)

// retryAfter makes a request through the proxy and returns its status and for how many seconds it says to wait.
func (s *setup) retryAfter(t *testing.T, org string) (status, seconds int) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/graph/me", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+callerKey)
	req.Header.Set("X-Org-ID", org)
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	if value := resp.Header.Get("Retry-After"); value != "" {
		seconds, err = strconv.Atoi(value)
		require.NoError(t, err)
	}
	return resp.StatusCode, seconds
}

func TestLimitsReachTheProxy(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return strings.Replace(text, "proxy: {", "proxy: {max_concurrent: 9, ", 1) +
			"    limits: {per_org: {rate: 1, burst: 2, concurrent: 3}, per_caller: {rate: 4, burst: 5, concurrent: 6}, concurrent: 7, upstream_retry_after: false}\n"
	})
	cfg, err := load(s.config, anySecret)
	require.NoError(t, err)
	usage := &proxy.Usage{}
	got := proxyConfig(cfg, nil, nil, usage, nil)
	require.Same(t, usage, got.Usage)
	require.Equal(t, 9, got.MaxConcurrent)
	require.Equal(t, proxy.Limits{
		PerOrg:           proxy.Quota{Rate: 1, Burst: 2, Concurrent: 3},
		PerCaller:        proxy.Quota{Rate: 4, Burst: 5, Concurrent: 6},
		Concurrent:       7,
		IgnoreRetryAfter: true,
	}, got.Routes[0].Limits)
}

func TestAnOrgThatFloodsIsToldToWaitWhileOthersAreServed(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
		return text + "    limits: {per_org: {rate: 0.01, burst: 10, concurrent: 5}, per_caller: {rate: 10000}}\n"
	})
	r := s.start(t)
	s.connect(t, "acme")
	s.connect(t, "globex")
	var flood sync.WaitGroup
	for range 3 {
		flood.Go(func() {
			for range 30 {
				_, _ = s.retryAfter(t, "acme")
			}
		})
	}
	for range 10 {
		status, _ := s.retryAfter(t, "globex")
		require.Equal(t, http.StatusOK, status)
	}
	flood.Wait()
	status, seconds := s.retryAfter(t, "acme")
	require.Equal(t, http.StatusTooManyRequests, status)
	require.Greater(t, seconds, 10)
	require.LessOrEqual(t, seconds, 100)
	require.Equal(t, "81", s.metric(t, `bifrost_request_errors_total{integration="graph",reason="rate_limited"}`))
	require.True(t, r.stderr.contains(`"code":"rate_limited"`))

	// A reload is no fresh start, but what it changes applies at once.
	r.signal(t, syscall.SIGHUP)
	r.logged(t, "the configuration was reloaded")
	status, _ = s.retryAfter(t, "acme")
	require.Equal(t, http.StatusTooManyRequests, status)
	s.write(t, strings.Replace(s.text(), "log: {level: debug}", "log: {level: info}", 1))
	require.Eventually(t, func() bool {
		status, _ := s.retryAfter(t, "acme")
		return status == http.StatusOK
	}, patience, pollTime, "the limits are gone")
}
