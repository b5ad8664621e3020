package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// TestHangUpLosesNoToken has the request end that started a refresh, by a token that the upstream refuses, while the provider
// holds its answer back: the refresh token is spent by then, and the new one must not go down with the request.
func TestHangUpLosesNoToken(t *testing.T) {
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	r := newSite(t, idp).start()
	r.adopt("acme")
	gate := authflowtest.NewGate()
	idp.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
	killAccess(idp, "acme")

	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	gone := make(chan error, 1)
	req := r.proxied("acme", "/graph/me").WithContext(ctx)
	go func() { // ends with hangUp
		_, err := r.try(req)
		gone <- err
	}()
	within(t, gate.Arrived())
	hangUp()
	require.ErrorIs(t, <-gone, context.Canceled)
	require.Eventually(t, func() bool { return r.metric("bifrost_requests_in_flight") == 0 }, patience, pollTime)
	gate.Release()

	ans := r.call("acme", "/graph/me")
	require.Equal(t, http.StatusOK, ans.Status, ans.Body)
	require.Equal(t, 3, generation(t, ans))
	require.Equal(t, 2, idp.Count("refresh_token"), "the import's and the one that was hung up on")
	r.stop()
	ans = r.site.start().call("acme", "/graph/me")
	require.Equal(t, http.StatusOK, ans.Status, ans.Body)
	require.Equal(t, 3, generation(t, ans), "the token was not stored")
}

// TestStoreAwayWhileTheProviderAnswers stops Redis between a POST that spends a refresh token and its answer.
func TestStoreAwayWhileTheProviderAnswers(t *testing.T) {
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	redis := storetest.StartRedis(t)
	s := newSite(t, idp)
	s.onRedis(redis.URL)
	one, two := s.start(), s.start()
	one.adopt("acme")
	require.Equal(t, http.StatusOK, two.call("acme", "/graph/me").Status)
	gate := authflowtest.NewGate()
	idp.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
	killAccess(idp, "acme")

	waiting := crowd([]*replica{one}, 1, "acme")
	within(t, gate.Arrived())
	redis.Stop()
	gate.Release()
	require.Equal(t, "200", <-waiting, "the request that waited for the refresh")
	for range 20 {
		ans := one.call("acme", "/graph/me")
		require.Equal(t, http.StatusOK, ans.Status, ans.Body)
		require.Equal(t, 3, generation(t, ans))
	}
	require.Equal(t, 1.0, one.metric("bifrost_unpersisted_tokens"))

	redis.Restart()
	require.Eventually(t, func() bool { return one.metric("bifrost_unpersisted_tokens") == 0 }, patience, pollTime)
	var ans answer
	require.Eventually(t, func() bool {
		ans = two.call("acme", "/graph/me")
		return ans.Status == http.StatusOK
	}, patience, pollTime, "the other replica does not serve")
	require.Equal(t, 3, generation(t, ans))
	require.Equal(t, 2, idp.Count("refresh_token"), "the import's and this one")
	require.Empty(t, idp.Reuses())
}

// killAccess has the upstream refuse the org's latest access token from now on.
func killAccess(idp *authflowtest.Provider, org string) {
	idp.KillAccess(newest(idp, org).Access)
}

// newest returns the latest tokens of the org's latest grant that was ever refreshed.
func newest(idp *authflowtest.Provider, org string) authflowtest.Issued {
	var grant string
	for _, post := range idp.Posts() {
		if spent, ok := idp.Lookup(post.RefreshToken + post.Code); ok && spent.User == org {
			grant = spent.Grant
		}
	}
	issued, _ := idp.Newest(grant)
	return issued
}

// generation is how often the token was renewed that the upstream saw, plus one.
func generation(t *testing.T, ans answer) int {
	t.Helper()
	var seen struct{ Generation int }
	require.NoError(t, json.Unmarshal([]byte(ans.Body), &seen), ans.Body)
	return seen.Generation
}

func within(t *testing.T, happened <-chan struct{}) {
	t.Helper()
	select {
	case <-happened:
	case <-time.After(patience):
		require.Fail(t, "it does not happen")
	}
}
