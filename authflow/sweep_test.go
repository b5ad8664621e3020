package authflow_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestSweepRefreshesBeforeExpiry(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		w.sweep(w.Broker)
		w.sweep(second)
		posts := w.posts()
		for range 6 {
			pass(time.Hour)
			w.use(w.Broker, "acme")
		}
		require.InDelta(t, 7, posts(), 1)
		w.oncePerToken()
	})
}

func TestIdleConnectionIsKeptAliveAndNoMore(t *testing.T) {
	s := rotating
	s.integration = func(in *authflow.Integration) {
		in.Refresh = authflow.OneTime
		in.IdleLifetime = 36 * time.Hour
	}
	inWorld(t, s, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		pass(time.Minute)
		w.sweep(w.Broker)
		pass(25 * time.Hour)
		posts := w.posts()
		pass(48 * time.Hour)
		require.InDelta(t, 4, posts(), 1, "nobody uses it: about every third of what the provider allows")
		require.True(t, w.provider.GrantAlive(grant))

		w.use(w.Broker, "acme")
		posts = w.posts()
		pass(12 * time.Hour)
		require.GreaterOrEqual(t, posts(), 12, "it is in use again")
		w.oncePerToken()
	})
}

func TestSweepBoundsItsConcurrencyPerEndpoint(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		for i := range 40 {
			w.connect(tokenstore.Org("org-" + string(rune('A'+i))))
		}
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(20 * time.Second))
		posts := w.posts()
		w.sweep(w.Broker)
		pass(58 * time.Minute)
		require.Equal(t, 40, posts())
		require.LessOrEqual(t, w.provider.MaxConcurrent(), 8)
		w.oncePerToken()
	})
}

func TestGaugesCountConnectionsByStatus(t *testing.T) {
	s := rotating
	s.integration = func(in *authflow.Integration) {
		in.Refresh = authflow.OneTime
		in.Orgs = []tokenstore.Org{"named"}
	}
	inWorld(t, s, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		pass(time.Minute)
		n, err := testutil.GatherAndCount(w.metrics, "bifrost_connections")
		require.NoError(t, err)
		require.Equal(t, len(authflow.Statuses), n)
		n, err = testutil.GatherAndCount(w.metrics, "bifrost_connection_status", "bifrost_token_expiry_timestamp_seconds")
		require.NoError(t, err)
		require.Equal(t, 2, n)
	})
}

func TestGrantOfAClientThatIsConfiguredAgainIsKeptAlive(t *testing.T) {
	s := rotating
	s.integration = func(in *authflow.Integration) { in.IdleLifetime = 72 * time.Hour }
	inWorld(t, s, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		bad := w.integration
		bad.ClientID = "typo"
		pass(30 * time.Minute)
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&bad}))
		pass(time.Hour)
		good := w.integration
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&good}))
		posts := w.posts()
		pass(72 * time.Hour)
		require.Positive(t, posts())
	})
}

func TestSweepLooksBehindWhatItCannotRefresh(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		for i := range 12000 {
			w.store.ahead = append(w.store.ahead, tokenstore.Slot{Integration: "removed", Org: tokenstore.Org(fmt.Sprint(i))})
		}
		w.sweep(w.Broker)
		posts := w.posts()
		pass(58 * time.Minute)
		require.Positive(t, posts())
	})
}
