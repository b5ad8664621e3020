package authflow_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var rotating = settings{
	provider:    authflowtest.Config{Refresh: authflowtest.OneTime},
	integration: func(in *authflow.Integration) { in.Refresh = authflow.OneTime },
}

func TestFreshTokenComesFromMemory(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		posts, reads := w.posts(), w.store.reads.Load()
		first := w.use(w.Broker, "acme")
		for range 100 {
			require.Equal(t, first.Header(), w.use(w.Broker, "acme").Header())
		}
		require.Zero(t, posts())
		require.Equal(t, reads, w.store.reads.Load(), "a warm token needs no look at the store")
	})
}

func TestOrgsNeverShareTokens(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		for _, org := range []tokenstore.Org{"acme", "globex", tokenstore.Global} {
			w.connect(org)
		}
		for _, org := range []tokenstore.Org{"acme", "globex", tokenstore.Global} {
			require.Equal(t, slot(org), w.use(w.Broker, org).Slot)
		}
	})
}

func TestOrgThatNeverConnectedUsesGlobal(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect(tokenstore.Global)
		require.Equal(t, slot(tokenstore.Global), w.use(w.Broker, "acme").Slot)

		w.connect("acme") // elsewhere, as far as the request path is concerned
		require.Equal(t, slot("acme"), w.use(w.Broker, "acme").Slot)

		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"))
		require.Equal(t, slot(tokenstore.Global), w.use(w.Broker, "acme").Slot)
	})
}

func TestNothingToFallBackOn(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrNotConnected)
	})
	alone := rotating
	alone.integration = func(in *authflow.Integration) { in.Fallback = false }
	inWorld(t, alone, func(t *testing.T, w *world) {
		w.connect(tokenstore.Global)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrNotConnected)
	})
}

func TestBrokenConnectionNeverFallsBack(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect(tokenstore.Global)
		grant := w.connect("acme")
		w.provider.RevokeGrant(grant)
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Equal(t, authflow.NeedsReconnect, w.status("acme").Status)
		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
	})
}

func TestTokenPastSoftIsUsedAndRefreshedBehind(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		stale := w.use(w.Broker, "acme")
		posts := w.posts()
		pass(55 * time.Minute)
		require.Equal(t, stale.Header(), w.use(w.Broker, "acme").Header(), "nobody waits for a refresh behind")
		synctest.Wait()
		require.Equal(t, 1, posts())
		require.NotEqual(t, stale.Header(), w.use(w.Broker, "acme").Header())
		w.oncePerToken()
	})
}

func TestFiveSecondTokensWork(t *testing.T) {
	s := rotating
	s.provider.Lifetime = 5 * time.Second
	inWorld(t, s, func(t *testing.T, w *world) {
		w.connect("acme")
		posts := w.posts()
		for range 600 {
			w.use(w.Broker, "acme")
			pass(100 * time.Millisecond)
		}
		require.InDelta(t, 22, posts(), 3)
		w.oncePerToken()
	})
}

func TestThousandRequestsOnAnExpiredTokenCauseOnePost(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.provider.MisbehaveAlways(authflowtest.SlowAfter(300 * time.Millisecond))
		pass(2 * time.Hour)
		posts := w.posts()
		w.together(1000, w.Broker)
		require.Equal(t, 1, posts())
		w.oncePerToken()
	})
}

func TestThreeReplicasOnAnExpiredTokenCauseOnePost(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		third, _ := w.replica()
		w.provider.MisbehaveAlways(authflowtest.SlowAfter(700 * time.Millisecond))
		pass(2 * time.Hour)
		posts := w.posts()
		w.together(300, w.Broker, second, third)
		require.Equal(t, 1, posts())
		w.oncePerToken()
	})
}

// together has n requests at each replica ask for acme's token at the same moment.
func (w *world) together(n int, replicas ...*authflow.Broker) {
	w.Helper()
	var all sync.WaitGroup
	errs := make(chan error, n*len(replicas))
	for _, b := range replicas {
		for range n {
			all.Go(func() {
				cred, err := b.Token(w.Context(), slot("acme"))
				if err == nil {
					w.alive(cred)
				}
				errs <- err
			})
		}
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(w, err)
	}
}

func TestRefreshOutlivesTheCallerThatStartedIt(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		posts := w.posts()
		w.provider.Misbehave(authflowtest.SlowAfter(3 * time.Second))
		hasty, hangUp := context.WithTimeout(t.Context(), time.Second)
		defer hangUp()
		_, err := w.Token(hasty, slot("acme"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, w.Wait(t.Context()))
		w.use(w.Broker, "acme")
		require.Equal(t, 1, posts(), "the rotated token was stored although the caller had gone")
		w.oncePerToken()
	})
}

func TestCallerWaitsTenSecondsAndTheRefreshGoesOn(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.SlowAfter(14 * time.Second))
		began := time.Now()
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrPending)
		require.Equal(t, 10*time.Second, time.Since(began))
		w.use(w.Broker, "acme")
		require.Equal(t, 14*time.Second, time.Since(began))
		w.oncePerToken()
	})
}

func TestUnknownIntegration(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		_, err := w.Token(t.Context(), tokenstore.Slot{Integration: "nobody", Org: "acme"})
		require.ErrorIs(t, err, authflow.ErrUnknownIntegration)
	})
}

// RFC 6749 section 6: an answer without a refresh token leaves the old one in force.
func TestRefreshTokenThatAnAnswerLeavesOutStays(t *testing.T) {
	inWorld(t, settings{provider: authflowtest.Config{KeepRefresh: true}}, func(t *testing.T, w *world) {
		w.connect("acme")
		for generation := 2; generation < 5; generation++ {
			pass(2 * time.Hour)
			require.Equal(t, generation, w.token(w.use(w.Broker, "acme")).Generation)
		}
		require.Equal(t, authflow.Active, w.status("acme").Status)
	})
}
