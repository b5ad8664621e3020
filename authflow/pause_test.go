package authflow_test

import (
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
