package authflow_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// stored returns acme's record.
func (w *world) stored() *tokenstore.Record {
	w.Helper()
	rec, err := w.store.Get(w.Context(), slot("acme"))
	require.NoError(w, err)
	return rec
}

// failover has the store go back to old, and the Feed say that it was cut off.
func (w *world) failover(old *tokenstore.Record) {
	w.store.goneBack.Store(old)
	(*w.store.feed.Load())(tokenstore.Slot{})
	pass(2 * time.Second) // a look that something else has overtaken is repeated after a second
}

func TestLostTokenIsWrittenBackWithoutARequest(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		old := w.stored()
		pass(55 * time.Minute) // the sweep has refreshed it: no request has ever used it
		fresh := w.stored()
		require.EqualValues(t, 2, fresh.Generation)
		pass(time.Minute)
		w.failover(old)
		require.Equal(t, fresh.Token.Access, w.stored().Token.Access)
		pass(2 * time.Hour)
		w.use(w.Broker, "acme")
		w.oncePerToken()
	})
}

func TestLostTokenIsWrittenBackWhenTheStoreAnswersAgain(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		old := w.stored()
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		w.store.down.Store(true)
		w.failover(old)
		pass(20 * time.Second)
		w.store.down.Store(false)
		pass(3 * time.Second)
		require.EqualValues(t, 2, w.stored().Generation)
	})
}

func TestLostVerdictIsWrittenBack(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		synctest.Wait()
		old := w.stored()
		w.provider.Misbehave(authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant"))
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		w.failover(old)
		require.Equal(t, authflow.NeedsReconnect, w.status("acme").Status)
	})
}

func TestLostGrantIsWrittenBackAndAnEarlierOneIsNot(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		synctest.Wait()
		old := w.stored()
		pass(time.Minute)
		second := w.connect("acme")
		w.failover(old)
		require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
		require.NotEqual(t, old.Grant, w.stored().Grant)

		other, _ := w.replica()
		third := w.connect("acme") // elsewhere: the other replica knows the second grant alone
		w.use(other, "acme")
		pass(time.Minute)
		require.Equal(t, third, w.token(w.use(other, "acme")).Grant)
	})
}

func TestRefreshUnderWayKeepsALostGrant(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		old := w.stored()
		pass(time.Minute)
		second := w.connect("acme")
		cred, err := w.duringRefresh(func() { w.store.goneBack.Store(old) })
		require.NoError(t, err)
		require.Equal(t, second, w.alive(cred).Grant)
		require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
	})
}

func TestReconnectAfterADisconnectIsNoStoreThatHasGoneBack(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		w.sweep(second)
		for range 3 {
			pass(time.Hour)
			w.use(second, "acme")
		}
		pass(6 * time.Second) // it believes its memory no more
		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"))
		grant := w.connect("acme") // its writes are counted from one again
		w.failover(nil)
		require.Equal(t, grant, w.token(w.use(second, "acme")).Grant)
	})
}

// A holder that dies in a refresh that nobody waits for, long before the token is due, leaves a token to be redeemed again inside
// the grace; after it the provider would take that for a theft.
func TestSweepTakesOverInsideTheGrace(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		pass(10 * time.Minute)
		var during *tokenstore.Record
		_, err := w.duringRefresh(func() { during = w.stored() })
		require.NoError(t, err)
		require.WithinDuration(t, during.Intent.Began.Add(10*time.Second), during.Due, 0, "when the lease has run out")

		pass(10 * time.Minute)
		w.crashed(12 * time.Second)
		w.edit("acme", func(rec *tokenstore.Record) { rec.Due = time.Now() })
		before := w.stored().Generation
		w.sweep(w.Broker)
		pass(2 * time.Second)
		synctest.Wait()
		require.Equal(t, before+1, w.stored().Generation)
		require.True(t, w.provider.GrantAlive(grant))
	})
}

// A process may stand still from its write until after the failover that loses it: the answer, when it is read at last, tells of a
// store that is no more.
func TestWriteThatIsLostBeforeItsAnswerIsReadIsWrittenBack(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		pass(time.Minute)
		old := w.stored()
		lost := func() {
			w.store.goneBack.Store(old)
			(*w.store.feed.Load())(tokenstore.Slot{})
			pass(100 * time.Millisecond)
		}
		declared := func() { w.store.afterSave.Store(&lost) }
		w.store.afterSave.Store(&declared)
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		pass(5 * time.Second) // nobody uses it
		require.EqualValues(t, 2, w.stored().Generation)
	})
}

// A grant that was forgotten as soon as it was stored could not be written back after a failover.
func TestNewGrantIsKnownAlthoughMemoryWasTidiedMeanwhile(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.sweep(w.Broker)
		pass(30*time.Second - 100*time.Millisecond)
		slow := func() { pass(200 * time.Millisecond) }
		w.store.beforeSave.Store(&slow)
		w.connect("acme")
		w.store.down.Store(true)
		w.use(w.Broker, "acme")
	})
}

// Memory is believed for seconds: a refresh may be the first to learn that the store has gone back.
func TestRefreshOfWhatTheStoreHasLostBeginsWithPuttingItRight(t *testing.T) {
	short := rotating
	short.provider.Lifetime = 2 * time.Second
	inWorld(t, short, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		old := w.stored()
		pass(2 * time.Second)
		w.use(w.Broker, "acme")
		w.store.goneBack.Store(old)
		pass(2 * time.Second)
		w.use(w.Broker, "acme")
		w.oncePerToken()
		require.True(t, w.provider.GrantAlive(grant))
	})
}
