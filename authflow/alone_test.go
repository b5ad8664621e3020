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

// With thousands of orgs in turn, each request used to find memory too old, and to cost a read and a decryption behind it.
func TestTheSoleHolderOfAStoreDoesNotReadWhatItKnows(t *testing.T) {
	for _, alone := range []bool{true, false} {
		inWorld(t, settings{provider: authflowtest.Config{Lifetime: time.Hour}, alone: alone}, func(t *testing.T, w *world) {
			w.connect("acme")
			w.use(w.Broker, "acme")
			before := w.store.reads.Load()
			for range 10 {
				pass(time.Minute)
				w.use(w.Broker, "acme")
				_, err := w.Token(t.Context(), slot("stranger")) // that there is none is known as well
				require.ErrorIs(t, err, authflow.ErrNotConnected)
			}
			reads := w.store.reads.Load() - before
			if alone {
				require.LessOrEqual(t, reads, int32(2), "the stranger's own connection and the global one")
			} else {
				require.Greater(t, reads, int32(10))
			}
		})
	}
}

func TestTheSoleHolderOfAStoreFeelsItsOwnChanges(t *testing.T) {
	inWorld(t, settings{alone: true}, func(t *testing.T, w *world) {
		w.connect("acme")
		first := w.use(w.Broker, "acme")
		w.connect("acme")
		require.NotEqual(t, first.Header(), w.use(w.Broker, "acme").Header())
		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "ops"))
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrNotConnected)
	})
}

// It must still be noted that a connection is in use: one that nobody uses is refreshed rarely.
func TestTheSoleHolderOfAStoreLooksNowAndThen(t *testing.T) {
	inWorld(t, settings{provider: authflowtest.Config{Lifetime: 100 * time.Hour}, alone: true}, func(t *testing.T, w *world) {
		w.connect("acme")
		used := func() time.Time {
			rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
			require.NoError(t, err)
			return rec.Used
		}
		w.use(w.Broker, "acme")
		early := used()
		for range 3 * 60 {
			pass(time.Minute)
			w.use(w.Broker, "acme")
		}
		require.Greater(t, used().Sub(early), 90*time.Minute)
	})
}

// Uses in bursts that are shorter than the time between two looks used not to be noted at all: the connection counted as one that
// nobody uses, though it was used every hour.
func TestTheSoleHolderOfAStoreNotesShortBurstsOfUse(t *testing.T) {
	inWorld(t, settings{provider: authflowtest.Config{Lifetime: 100 * time.Hour}, alone: true}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		began := time.Now()
		for range 10 {
			w.use(w.Broker, "acme")
			pass(time.Hour) // it leaves memory meanwhile
		}
		synctest.Wait()
		rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Greater(t, rec.Used.Sub(began), 8*time.Hour-time.Minute)
	})
}

// A write that failed may have happened. Nobody else tells the sole holder, who used to believe for good what was known before: an
// org went on with the global connection, or with one that was gone.
func TestTheSoleHolderOfAStoreLooksAfterAWriteThatFailed(t *testing.T) {
	inWorld(t, settings{alone: true}, func(t *testing.T, w *world) {
		w.connect(tokenstore.Global)
		require.Equal(t, tokenstore.Global, w.use(w.Broker, tokenstore.Global).Slot.Org)
		cred, err := w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, tokenstore.Global, cred.Slot.Org)

		w.store.loseSaves.Store(1)
		goAway := func() { w.store.down.Store(true) }
		w.store.afterSave.Store(&goAway)
		issued := w.provider.Issue("acme", "read")
		err = w.Consented(t.Context(), slot("acme"), issued.Access, issued.Refresh, issued.AccessExpires, issued.Scopes)
		require.ErrorIs(t, err, authflow.ErrStore)
		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrStore, "it is not known to be absent")
		w.store.down.Store(false)
		pass(storeBack)
		w.use(w.Broker, "acme")

		w.store.loseSaves.Store(1)
		require.ErrorIs(t, w.Disconnect(t.Context(), slot("acme"), "ops"), authflow.ErrStore)
		pass(storeBack)
		cred, err = w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, tokenstore.Global, cred.Slot.Org)
	})
}
