package authflow_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// A flight with requests behind it used to take and give back the lease twice a second for as long as another holder's POST might
// be on its way: with thousands of connections, after Redis was restarted, a storm.
func TestWaitForAnotherHolderLeavesTheStoreInPeace(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		since := time.Now()
		w.store.since.Store(&since)
		acquires, reads := w.store.acquires.Load(), w.store.reads.Load()
		for time.Since(since) < 30*time.Second {
			_, _ = w.Token(t.Context(), slot("acme")) // there is none yet
		}
		require.LessOrEqual(t, w.store.acquires.Load()-acquires, int32(1))
		require.LessOrEqual(t, w.store.reads.Load()-reads, int32(2*30/5+2), "the flight's and the requests'")
		w.use(w.Broker, "acme")
		require.Equal(t, 35*time.Second, time.Since(since))
		w.oncePerToken()
	})
}

// What ends the wait early is seen at once where the Feed tells of it, and soon where it does not.
func TestWaitForAnotherHolderEndsWithItsOutcome(t *testing.T) {
	for name, within := range map[string]time.Duration{"with the feed": 0, "without": 5 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, rotating, func(t *testing.T, w *world) {
				w.connect("acme")
				if within == 0 {
					w.sweep(w.Broker)
				}
				pass(49 * time.Minute)
				w.edit("acme", func(rec *tokenstore.Record) {
					now := time.Now()
					rec.Token.Expiry = now // and so nobody has a token to use
					rec.Intent = &tokenstore.Intent{Holder: "elsewhere", Began: now, Deadline: now.Add(35 * time.Second)}
				})
				answer := make(chan error, 1)
				go func() {
					_, err := w.Token(t.Context(), slot("acme"))
					answer <- err
				}()
				pass(time.Second)
				synctest.Wait()
				rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
				require.NoError(t, err)
				fresh := w.provider.Issue("acme", "read")
				prev := rec.Version()
				rec.Generation++
				rec.Token = tokenstore.Token{Access: fresh.Access, Refresh: fresh.Refresh, Type: "Bearer", Expiry: fresh.AccessExpires}
				rec.Refreshed, rec.Intent = time.Now(), nil
				posts, began := w.posts(), time.Now()
				require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), rec, prev))
				require.NoError(t, <-answer)
				require.LessOrEqual(t, time.Since(began), within)
				require.Zero(t, posts())
			})
		})
	}
}

// For half a minute after Redis was restarted, each request of such a connection used to wait as long as a caller waits at all.
func TestStoreThatMayHaveLostAnIntentHoldsUpNobodyWhoseTokenAFreshOneWouldKill(t *testing.T) {
	dying := settings{provider: rotating.provider, integration: func(in *authflow.Integration) {
		rotating.integration(in)
		in.AccessDies = true
	}}
	inWorld(t, dying, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(55 * time.Minute)
		since := time.Now()
		w.store.since.Store(&since)
		posts := w.posts()
		for range 34 {
			began := time.Now()
			w.use(w.Broker, "acme")
			require.Zero(t, time.Since(began))
			pass(time.Second)
		}
		require.Zero(t, posts())
		pass(2 * time.Second)
		w.use(w.Broker, "acme")
		require.Equal(t, 1, posts())
	})
}

// An operator who joined a refresh that then left the token as it is was told that it had been refreshed.
func TestOperatorIsNotContentWithTheTokenThatThereIs(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(49 * time.Minute)
		w.edit("acme", func(rec *tokenstore.Record) {
			rec.Intent = &tokenstore.Intent{Holder: "dead", Began: time.Now().Add(-time.Minute), Deadline: time.Now().Add(-30 * time.Second)}
		})
		cred := w.use(w.Broker, "acme")
		posts := w.posts()
		refreshed := make(chan error, 1)
		join := func() {
			go func() {
				_, err := w.Refresh(t.Context(), slot("acme"))
				refreshed <- err
			}()
			pass(time.Millisecond)
		}
		first := func() { w.store.afterGet.Store(&join) } // of the request; the second is the flight's
		w.store.afterGet.Store(&first)
		_, err := w.Replace(t.Context(), cred)
		require.Error(t, err, "the outcome of the last refresh is unknown")
		require.NoError(t, <-refreshed)
		require.Equal(t, 1, posts())
	})
}
