package authflow_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// A process that stood still between declaring its intent and its POST must not send: the lease is someone else's by then.
func TestPausedHolderOfALostLeaseDoesNotPost(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(2 * time.Hour)
		posts := w.posts()
		pause := func() { pass(2 * time.Minute) }
		w.store.afterSave.Store(&pause)
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }() // its caller gives up long before it wakes
		synctest.Wait()
		pass(time.Minute)
		w.use(second, "acme")
		require.NoError(t, w.Wait(t.Context()))
		require.Equal(t, 1, posts())
		w.use(w.Broker, "acme")
		w.oncePerToken()
	})
}

// A rotating token is taken over as soon as the lease is free, while its Intent still lives: the lease alone keeps a holder that
// stood still from a second POST.
func TestPausedHolderOfARotatingTokenDoesNotPostBesideItsSuccessor(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(2 * time.Hour)
		posts := w.posts()
		stand := func() { pass(12 * time.Second) }
		w.store.afterSave.Store(&stand)
		w.provider.MisbehaveAlways(authflowtest.SlowAfter(5 * time.Second))
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
		pass(8 * time.Second)
		w.use(second, "acme") // once the lease of 10 s has run out; its answer comes when the other one wakes up
		require.NoError(t, w.Wait(t.Context()))
		require.Equal(t, 1, posts())
	})
}

func TestFailureLeavesTheIntentOfALaterHolder(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(2 * time.Hour)
		w.store.loseLeases.Store(true)
		late := authflowtest.NewGate()
		failing := authflowtest.OAuthError(http.StatusBadRequest, "temporarily_unavailable")
		failing.After = 11 * time.Second
		w.provider.Misbehave(failing, authflowtest.Behaviour{HoldBefore: late})
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
		pass(8 * time.Second)
		go func() { _, _ = second.Token(t.Context(), slot("acme")) }()
		<-late.Arrived()
		declared := w.stored().Intent
		require.NoError(t, w.Wait(t.Context()))
		require.NotNil(t, w.stored().Failure)
		require.Equal(t, declared, w.stored().Intent)
		late.Release()
		require.NoError(t, second.Wait(t.Context()))
	})
}

func TestIntentOfAPostThatWasNotMadeHoldsNobodyBack(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.store.loseLeases.Store(true)
		stand := func() { pass(31 * time.Second) } // a lease of 60 s has too little left then
		w.store.afterSave.Store(&stand)
		posts := w.posts()
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
		synctest.Wait()
		pass(32 * time.Second)
		require.Zero(t, posts())
		require.Nil(t, w.stored().Intent)
		began := time.Now()
		w.use(w.Broker, "acme")
		require.Zero(t, time.Since(began))
	})
}

// The caller that starts a flight may go while the flight still waits for another replica; others wait for it too.
func TestFlightOutlivesTheCallerThatStartedIt(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		lease, err := w.store.Backend.Acquire(t.Context(), slot("acme"), time.Minute)
		require.NoError(t, err)
		ctx, hangUp := context.WithCancel(t.Context())
		go func() { _, _ = w.Token(ctx, slot("acme")) }()
		synctest.Wait()
		posts := w.posts()
		go func() {
			pass(time.Second)
			hangUp()
			pass(time.Second)
			require.NoError(t, w.store.Backend.Release(t.Context(), lease))
		}()
		w.use(w.Broker, "acme")
		require.Equal(t, 1, posts())
	})
}

func TestUseNotedBeforeTheIntentIsNoObstacle(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		noted := func() {
			rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
			require.NoError(t, err)
			prev := rec.Version()
			rec.Used = time.Now()
			require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), rec, prev))
		}
		w.store.beforeSave.Store(&noted)
		began := time.Now()
		w.use(w.Broker, "acme")
		require.Zero(t, time.Since(began), "it is decided anew at once")
		w.oncePerToken()
	})
}

func TestReadOvertakenByAReconnectDoesNotUndoIt(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(time.Minute)
		var second string
		meanwhile := func() { second = w.connect("acme") }
		w.store.afterGet.Store(&meanwhile) // of the read that the next use causes
		w.use(w.Broker, "acme")
		require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
	})
}

func TestFirstReadOvertakenByTheFeedStillAnswers(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		w.sweep(second)
		pass(time.Second)
		meanwhile := func() {
			w.edit("acme", func(rec *tokenstore.Record) { rec.Write = "elsewhere" })
		}
		w.store.afterGet.Store(&meanwhile)
		w.use(second, "acme")
	})
}

func TestSweepLeavesAnUnknownOutcomeAlone(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		w.sweep(w.Broker)
		posts := w.posts()
		w.provider.Misbehave(authflowtest.DropAfter())
		pass(58 * time.Minute)
		require.Equal(t, 1, posts())
		require.True(t, w.provider.GrantAlive(grant))
		w.use(w.Broker, "acme")
	})
}

// While a flight that has failed was still giving its lease back, an operator's refresh that would not have its outcome asked for
// it over and over, without a pause.
func TestOperatorWaitsForAFlightThatIsEnding(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		failing := authflowtest.OAuthError(400, "temporarily_unavailable")
		failing.Before = time.Second
		w.provider.Misbehave(failing)
		slow := func() { pass(300 * time.Millisecond) }
		w.store.beforeLeft.Store(&slow)
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }() // it fails
		pass(100 * time.Millisecond)
		began := time.Now()
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(began), 1200*time.Millisecond)
	})
}

func TestDisconnectRevokesAtTheProvider(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"))
		require.False(t, w.provider.GrantAlive(grant))
		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"), "disconnecting nothing is no error")
		require.Equal(t, authflow.NotConnected, w.status("acme").Status)
	})
}
