package authflow_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// cluster is replicas that share a real Redis and a provider over real HTTP, in real time.
type cluster struct {
	redis    *storetest.RedisServer
	provider *authflowtest.Provider
	replicas []*authflow.Broker
}

func newCluster(t *testing.T, n int) *cluster {
	c := &cluster{
		redis:    storetest.StartRedis(t),
		provider: authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: time.Second}),
	}
	for range n {
		c.replicas = append(c.replicas, c.broker(t, c.redis.URL))
	}
	c.adopt(t, slot("acme"))
	return c
}

// expired waits until acme's access token has run out and then gives the next ones an hour.
func (c *cluster) expired(t *testing.T) {
	seen, err := c.replicas[0].Connection(t.Context(), slot("acme"))
	require.NoError(t, err)
	c.provider.SetLifetime(time.Hour)
	require.Eventually(t, func() bool { return time.Now().After(seen.ExpiresAt) }, 5*time.Second, 10*time.Millisecond)
}

func TestCrowdAtThreeReplicasOnRedisCausesOnePost(t *testing.T) {
	c := newCluster(t, 3)
	c.expired(t)
	before := c.provider.Count("refresh_token")
	var all sync.WaitGroup
	for _, b := range c.replicas {
		for range 300 {
			all.Go(func() {
				cred, err := b.Token(t.Context(), slot("acme"))
				if err != nil {
					t.Error(err)
					return
				}
				if token, ok := c.provider.Lookup(cred.Header()[len("Bearer "):]); !ok || !token.Alive || token.User != "acme" {
					t.Error("a request got a token that is dead or not its org's")
				}
			})
		}
	}
	all.Wait()
	require.Equal(t, 1, c.provider.Count("refresh_token")-before)
	require.Empty(t, c.provider.Reuses())
}

func TestRedisThatStopsAfterTheAnswerLosesNothing(t *testing.T) {
	c := newCluster(t, 2)
	c.expired(t)
	before := c.provider.Count("refresh_token")
	gate := authflowtest.NewGate()
	c.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
	got := make(chan authflow.Credential)
	go func() {
		cred, err := c.replicas[0].Token(t.Context(), slot("acme"))
		if err != nil {
			t.Error(err)
		}
		got <- cred
	}()
	<-gate.Arrived()
	c.redis.Stop()
	gate.Release()
	fresh := <-got
	for range 100 {
		cred, err := c.replicas[0].Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, fresh.Header(), cred.Header())
	}
	_, err := c.replicas[1].Token(t.Context(), slot("acme"))
	require.ErrorIs(t, err, authflow.ErrStore)

	c.redis.Restart()
	require.NoError(t, c.replicas[0].Wait(t.Context()))
	require.Eventually(t, func() bool {
		cred, err := c.replicas[1].Token(t.Context(), slot("acme"))
		return err == nil && cred.Header() == fresh.Header()
	}, 10*time.Second, 50*time.Millisecond)
	require.Equal(t, 1, c.provider.Count("refresh_token")-before)
	require.Empty(t, c.provider.Reuses())
}
