package authflow_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestFailedAnswerIsNotWaitedForAnyMore(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.Status(http.StatusServiceUnavailable, ""))
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		began := time.Now()
		for err != nil {
			pass(100 * time.Millisecond)
			_, err = w.Token(t.Context(), slot("acme"))
		}
		require.LessOrEqual(t, time.Since(began), 15*time.Second)
	})
}

func TestFailingEndpointIsNotAskedAgainAtOnce(t *testing.T) {
	s := rotating
	s.integration = func(in *authflow.Integration) { in.Refresh = authflow.Rotating }
	inWorld(t, s, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.Status(http.StatusServiceUnavailable, ""))
		posts := w.posts()
		for range 200 {
			_, _ = w.Token(t.Context(), slot("acme"))
			pass(100 * time.Millisecond)
		}
		require.InDelta(t, 4, posts(), 1)
	})
}

func TestRefusedClientIsProbedByOneConnection(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		for i := range 50 {
			w.connect(tokenstore.Org(fmt.Sprint("org", i)))
		}
		pass(2 * time.Hour)
		w.provider.SetClientSecret("other")
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(time.Second))
		_, err := w.Token(t.Context(), slot("org0"))
		require.ErrorIs(t, err, authflow.ErrClient)
		posts := w.posts()
		pass(61 * time.Second)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() { _, _ = w.Token(t.Context(), slot(tokenstore.Org(fmt.Sprint("org", i)))) })
		}
		all.Wait()
		require.Equal(t, 1, posts())
	})
}

func TestRequestsBehindAnotherReplicasRefreshLeaveTheStoreAlone(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(56 * time.Minute)
		_, err := w.store.Backend.Acquire(t.Context(), slot("acme"), time.Minute)
		require.NoError(t, err)
		before := w.store.acquires.Load()
		for range 5000 {
			w.use(second, "acme")
			pass(time.Millisecond)
		}
		require.InDelta(t, 10, w.store.acquires.Load()-before, 2)
	})
}

// While no refresh may begin, every request used to find that out anew, by hashing and under locks that all connections share.
func TestRequestsWhileNoRefreshMayBeginDoNotFindOutEachAnew(t *testing.T) {
	var resolved atomic.Int32
	counting := rotating
	counting.integration = func(in *authflow.Integration) {
		in.Refresh = authflow.OneTime
		resolve := in.Resolve
		in.Resolve = func(org tokenstore.Org) (authflow.Endpoints, error) {
			resolved.Add(1)
			return resolve(org)
		}
	}
	inWorld(t, counting, func(t *testing.T, w *world) {
		w.connect("acme")
		w.provider.MisbehaveAlways(authflowtest.Status(http.StatusTooManyRequests, "600"))
		pass(55 * time.Minute)
		w.use(w.Broker, "acme")
		synctest.Wait()
		before := resolved.Load()
		for range 1000 {
			w.use(w.Broker, "acme")
			pass(time.Millisecond)
		}
		require.Less(t, resolved.Load()-before, int32(10))
	})
}

func TestRetryAfterHoldsBackTheRequestsOfEveryReplica(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.Status(429, "60"))
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		posts := w.posts()
		for range 5 {
			pass(10 * time.Second)
			_, err := second.Token(t.Context(), slot("acme"))
			require.ErrorIs(t, err, authflow.ErrProvider)
		}
		require.Zero(t, posts())
		pass(11 * time.Second)
		w.use(second, "acme")
	})
}
