package authflow_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// dying is a provider that kills the previous access token with each refresh.
var dying = settings{
	provider: authflowtest.Config{Refresh: authflowtest.OneTime, AccessDies: true},
	integration: func(in *authflow.Integration) {
		in.Refresh, in.AccessDies = authflow.OneTime, true
	},
}

func TestTokenThatIsAboutToDieIsNotUsed(t *testing.T) {
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		stale := w.use(w.Broker, "acme")
		posts := w.posts()
		pass(55 * time.Minute)
		w.provider.Misbehave(authflowtest.SlowAfter(2 * time.Second))
		w.together(100, w.Broker)
		fresh := w.use(w.Broker, "acme")
		require.NotEqual(t, stale.Header(), fresh.Header())
		require.Equal(t, 1, posts())
		for range 10 {
			require.Equal(t, fresh.Header(), w.use(w.Broker, "acme").Header())
		}
		require.Equal(t, 1, posts())
	})
}

func TestRequestsWaitForARefreshThatAnOperatorAskedFor(t *testing.T) {
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		w.use(w.Broker, "acme")
		w.provider.Misbehave(authflowtest.SlowAfter(2 * time.Second))
		go func() { _, _ = w.Refresh(t.Context(), slot("acme")) }()
		synctest.Wait()
		began := time.Now()
		w.use(w.Broker, "acme")
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

func TestTokenThatCouldNotBeReplacedServesOn(t *testing.T) {
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		stale := w.use(w.Broker, "acme")
		pass(55 * time.Minute)
		w.provider.SetDown(true)
		began := time.Now()
		for range 10 {
			require.Equal(t, stale.Header(), w.use(w.Broker, "acme").Header())
		}
		require.Zero(t, time.Since(began))

		w.store.down.Store(true)
		require.Equal(t, stale.Header(), w.use(w.Broker, "acme").Header())
		w.store.down.Store(false)
		w.provider.SetDown(false)
		pass(10 * time.Second)
		require.NotEqual(t, stale.Header(), w.use(w.Broker, "acme").Header())
	})
}

func TestRequestWaitsTenSecondsForATokenToBeReplaced(t *testing.T) {
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		stale := w.use(w.Broker, "acme")
		pass(55 * time.Minute)
		w.provider.Misbehave(authflowtest.SlowBefore(15 * time.Second))
		began := time.Now()
		require.Equal(t, stale.Header(), w.use(w.Broker, "acme").Header())
		require.Equal(t, 10*time.Second, time.Since(began))
		require.NotEqual(t, stale.Header(), w.use(w.Broker, "acme").Header())
	})
}

func TestUnknownOutcomeHoldsNoRequestUp(t *testing.T) {
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		stale := w.use(w.Broker, "acme")
		pass(55 * time.Minute)
		w.provider.Misbehave(authflowtest.DropBefore())
		acquires := w.store.acquires.Load()
		for range 60 {
			began := time.Now()
			require.Equal(t, stale.Header(), w.use(w.Broker, "acme").Header())
			require.Zero(t, time.Since(began))
			pass(time.Second)
		}
		require.LessOrEqual(t, w.store.acquires.Load()-acquires, int32(2), "nor does each look for itself")
	})
}

func TestDisconnectEndsTheWaitForASuccessor(t *testing.T) {
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(55 * time.Minute)
		gate := authflowtest.NewGate()
		w.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
		go func() {
			<-gate.Arrived()
			if err := w.Disconnect(t.Context(), slot("acme"), "tester"); err != nil {
				t.Error(err)
			}
			gate.Release()
		}()
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrNotConnected)
	})
}
