package authflow_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// Without a store that takes writes nothing is POSTed: a rotated token could not be shared, and the old one is dead.
func TestWhateverBefallsRedisNoRefreshBegins(t *testing.T) {
	t.Parallel()
	for _, fault := range storetest.RedisFaults() {
		t.Run(fault.Name, func(t *testing.T) {
			t.Parallel()
			server := storetest.StartFaultyRedis(t)
			c := &cluster{redis: server, provider: authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: time.Hour})}
			c.replicas = []*authflow.Broker{c.broker(t, server.URL)}
			warm, stale := slot("warm"), slot("stale")
			c.adopt(t, warm)
			c.provider.SetLifetime(time.Second)
			c.adopt(t, stale)
			b := c.replicas[0]
			served, err := b.Token(t.Context(), warm)
			require.NoError(t, err)
			ends := time.Now().Add(time.Second)
			require.Eventually(t, func() bool { return time.Now().After(ends) }, 5*time.Second, 5*time.Millisecond)
			before := c.provider.Count("refresh_token")

			fault.Break(server)
			for range 5 {
				start := time.Now()
				_, err := b.Token(t.Context(), stale)
				require.ErrorIs(t, err, authflow.ErrStore)
				require.Less(t, time.Since(start), 1500*time.Millisecond) // 1 s is promised
				got, err := b.Token(t.Context(), warm)
				require.NoError(t, err)
				require.Equal(t, served.Header(), got.Header())
			}
			require.Equal(t, before, c.provider.Count("refresh_token"))
			c.provider.SetLifetime(time.Hour)
			fault.Mend(server)

			require.Eventually(t, func() bool { _, err := b.Token(t.Context(), stale); return err == nil }, 30*time.Second, 20*time.Millisecond)
			require.Equal(t, 1, c.provider.Count("refresh_token")-before, "a restarted one may have lost another's intent: that is waited for")
			require.Empty(t, c.provider.Reuses())
		})
	}
}

// postTime is short: for it, and a grace, a store that was restarted or taken over keeps one-time tokens waiting.
const postTime = 2 * time.Second

// broker is one more replica on the Redis at url.
func (c *cluster) broker(t *testing.T, url string) *authflow.Broker {
	t.Helper()
	secret := c.provider.ClientSecret()
	b, err := authflow.New(authflow.Config{
		Store: storetest.OpenRedis(t, url),
		Integrations: []*authflow.Integration{{
			Name: "graph", ClientID: c.provider.ClientID(), ClientSecret: func() string { return secret },
			Refresh: authflow.OneTime, TokenTimeout: postTime, Fallback: true,
			Resolve: func(tokenstore.Org) (authflow.Endpoints, error) {
				return authflow.Endpoints{TokenURL: c.provider.TokenURL}, nil
			},
		}},
		PublicURL: "https://bifrost.test",
		Metrics:   prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Wait(context.Background())) })
	return b
}

// adopt connects an org.
func (c *cluster) adopt(t *testing.T, slot tokenstore.Slot) {
	t.Helper()
	_, err := c.replicas[0].Import(t.Context(), slot, c.provider.Issue(string(slot.Org)).Refresh, "tester")
	require.NoError(t, err)
}
