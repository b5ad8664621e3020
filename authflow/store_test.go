package authflow_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestStoreThatGoesAwayAfterTheAnswerLosesNothing(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(2 * time.Hour)
		posts := w.posts()
		gate := authflowtest.NewGate()
		w.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
		go func() {
			<-gate.Arrived()
			w.store.down.Store(true)
			gate.Release()
		}()
		fresh := w.use(w.Broker, "acme")
		require.Equal(t, 1.0, w.metric("bifrost_unpersisted_tokens"))
		for range 60 {
			require.Equal(t, fresh.Header(), w.use(w.Broker, "acme").Header())
			pass(time.Second)
		}
		_, err := second.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrStore)

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Error(t, w.Wait(short), "shutdown waits for a token that is not stored")

		w.store.down.Store(false)
		require.NoError(t, w.Wait(t.Context()))
		require.Zero(t, w.metric("bifrost_unpersisted_tokens"))
		pass(storeBack)
		require.Equal(t, fresh.Header(), w.use(second, "acme").Header())
		require.Equal(t, 1, posts())
		w.oncePerToken()
	})
}

// A read that timed out while the store answered another one, begun later, says that this process is slow. Were the store
// taken to be away, every other connection would fail for a second.
func TestOneSlowAnswerIsNotAStoreThatIsAway(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.connect("globex")
		w.connect("initech")
		pass(2 * time.Hour)
		meanwhile := func() {
			pass(100 * time.Millisecond)
			w.use(w.Broker, "globex")
			w.store.timeouts.Store(1)
		}
		w.store.afterGet.Store(&meanwhile)
		w.use(w.Broker, "acme")
		w.use(w.Broker, "initech")
	})
}

// storeBack is long enough for a replica to notice that the store is back.
const storeBack = 2 * time.Second

func TestStoreAwayServesWhatIsWarmAndRefreshesNothing(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.connect("cold")
		w.connect(tokenstore.Global)
		w.use(w.Broker, "acme")
		w.use(w.Broker, "never-connected")
		second, _ := w.replica()
		posts := w.posts()
		w.store.down.Store(true)
		for range 60 {
			w.use(w.Broker, "acme")
			require.Equal(t, tokenstore.Global, w.use(w.Broker, "never-connected").Slot.Org)
			began := time.Now()
			_, err := second.Token(t.Context(), slot("cold"))
			require.ErrorIs(t, err, authflow.ErrStore)
			require.Less(t, time.Since(began), time.Second)
			_, err = second.Token(t.Context(), slot("never-connected"))
			require.ErrorIs(t, err, authflow.ErrStore, "not knowing is not the same as not connected")
			pass(time.Second)
		}
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrStore)
		require.Zero(t, posts())

		w.store.down.Store(false)
		pass(storeBack)
		w.use(w.Broker, "acme")
		w.oncePerToken()
	})
}

// Once it is known that the store hangs, only requests that need it wait for it, half a second at most, and it is not asked by
// all the others.
func TestStoreThatHangsHoldsUpNobodyWhoIsInMemory(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("cold")
		w.connect(tokenstore.Global)
		warm := []tokenstore.Org{"acme", "globex", "initech"}
		for _, org := range warm {
			w.connect(org)
			w.use(w.Broker, org)
		}
		w.use(w.Broker, "never-connected")
		second, _ := w.replica()
		w.use(second, "acme")
		w.store.hung.Store(true)
		pass(6 * time.Second)
		w.use(w.Broker, "acme") // finds out
		reads := w.store.reads.Load()
		for range 100 {
			pass(97 * time.Millisecond)
			for _, org := range append(warm, "never-connected") {
				began := time.Now()
				w.use(w.Broker, org)
				require.Zero(t, time.Since(began), org)
			}
			began := time.Now()
			_, err := second.Token(t.Context(), slot("cold"))
			require.ErrorIs(t, err, authflow.ErrStore)
			require.LessOrEqual(t, time.Since(began), 500*time.Millisecond)
		}
		require.LessOrEqual(t, w.store.reads.Load()-reads, int32(2*30), "one look per replica and second, and those of cold requests")

		w.store.hung.Store(false)
		pass(storeBack)
		w.use(second, "acme")
		pass(time.Millisecond)
		w.use(second, "cold")
	})
}

func TestSaveWhoseAnswerIsLostIsRecognised(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		posts := w.posts()
		gate := authflowtest.NewGate()
		w.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
		go func() {
			<-gate.Arrived()
			w.store.loseSaves.Store(1)
			gate.Release()
		}()
		w.use(w.Broker, "acme")
		require.NoError(t, w.Wait(t.Context()))
		require.Equal(t, 1, posts())
		w.use(w.Broker, "acme")
		w.oncePerToken()
		require.Zero(t, w.refreshes("conflict"), "it is our own write")
	})
}

func TestIntentWhoseAnswerIsLostCausesNoPost(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		posts := w.posts()
		w.store.loseSaves.Store(1)
		_, err := w.Token(t.Context(), slot("acme"))
		require.Error(t, err)
		require.Zero(t, posts())
		synctest.Wait()
		pass(storeBack)
		began := time.Now()
		w.use(w.Broker, "acme")
		require.Zero(t, time.Since(began), "nothing was on its way")
		w.oncePerToken()
	})
}

func TestConnectionLearnsOfOtherReplicas(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		second, _ := w.replica() // it does not follow the Feed
		w.connect(tokenstore.Global)
		require.Equal(t, tokenstore.Global, w.use(second, "acme").Slot.Org)
		w.connect("acme")
		pass(5 * time.Second)
		require.Equal(t, tokenstore.Org("acme"), w.use(second, "acme").Slot.Org)

		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"))
		pass(5 * time.Second)
		require.Equal(t, tokenstore.Global, w.use(second, "acme").Slot.Org)
	})
}

func TestFeedMakesChangesImmediate(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		second, _ := w.replica()
		w.sweep(second)
		synctest.Wait()
		w.connect(tokenstore.Global)
		require.Equal(t, tokenstore.Global, w.use(second, "acme").Slot.Org)
		w.connect("acme")
		synctest.Wait()
		require.Equal(t, tokenstore.Org("acme"), w.use(second, "acme").Slot.Org)
	})
}

// After a failover the lease may be a dead process's for as long as the others must wait anyway. A flight that waits for it must
// not keep the token that it knows, and that the store has lost, from being written back: the next holder would POST
// its parent.
func TestStoreThatHasGoneBackIsPutRightUnderAForeignLease(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		old, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		pass(2 * time.Hour)
		w.use(w.Broker, "acme")
		pass(2 * time.Hour)
		now, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		lost := *old
		require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), &lost, now.Version()))
		_, err = w.store.Acquire(t.Context(), slot("acme"), time.Hour)
		require.NoError(t, err)

		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrPending)
		synctest.Wait()
		stored, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, now.Generation, stored.Generation)
		w.oncePerToken()
	})
}

func TestStoreThatHasGoneBackIsPutRight(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		old, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		pass(2 * time.Hour)
		fresh := w.use(w.Broker, "acme")

		// A failover loses the last write. The lost generation's refresh token is spent.
		now, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		lost := *old
		require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), &lost, now.Version()))

		pass(10 * time.Second)
		require.Equal(t, fresh.Header(), w.use(w.Broker, "acme").Header())
		pass(2 * time.Hour)
		w.use(w.Broker, "acme")
		w.oncePerToken()
	})
}

func TestClockThatIsWrongStopsRefreshesOnly(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(time.Hour)
		cold := w.connectMany(20)
		second, _ := w.replica()
		w.store.skewed.Store(true)
		posts := w.posts()
		for _, org := range cold {
			_, err := second.Token(t.Context(), slot("acme"))
			require.ErrorIs(t, err, authflow.ErrStore)
			require.ErrorContains(t, err, "clock")
			w.use(second, org) // it is read from the store, which is not away
			pass(time.Second)
		}
		require.Zero(t, posts())
		w.store.skewed.Store(false)
		w.use(second, "acme")
	})
}

// By a clock that is a little ahead the older consent looks like the later one.
func TestNewConsentReplacesAnOlderOneByWhateverClock(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.edit("acme", func(rec *tokenstore.Record) { rec.Connected = time.Now().Add(20 * time.Second) })
		w.store.readOnly.Store(true)
		go func() {
			pass(time.Second)
			w.store.readOnly.Store(false)
		}()
		second := w.connect("acme")
		require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
	})
}

// An org may have connected elsewhere since this process looked; until the store can be asked, its requests use no other's token.
func TestOrgThatWasAbsentLongBeforeTheStoreWentAwayIsNotTakenForOne(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect(tokenstore.Global)
		cred, err := w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, tokenstore.Global, cred.Slot.Org)
		for range 10 {
			pass(time.Second)
			w.use(w.Broker, tokenstore.Global)
			synctest.Wait()
		}
		w.store.down.Store(true)
		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrStore)
	})
}
