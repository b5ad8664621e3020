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

// suspect has acme's connection come from a copy of the store.
func (w *world) suspect() {
	w.edit("acme", func(rec *tokenstore.Record) { rec.Suspect = true })
}

func TestSuspectRefreshTokenIsNotUsedWithoutAnOperator(t *testing.T) {
	for name, s := range map[string]settings{"one-time": rotating, "rotating": graceful} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, s, func(t *testing.T, w *world) {
				w.connect("acme")
				w.suspect()
				w.sweep(w.Broker)
				posts := w.posts()
				cred := w.use(w.Broker, "acme")
				seen := w.status("acme")
				require.Equal(t, authflow.Expiring, seen.Status, "what it has is used to its end")
				require.Equal(t, "other", seen.LastError.Code)
				require.Contains(t, seen.LastError.Text, "refresh the connection")

				_, err := w.Replace(t.Context(), cred)
				require.ErrorIs(t, err, authflow.ErrReconnect)
				for range 58 {
					w.use(w.Broker, "acme")
					synctest.Wait()
					pass(time.Minute)
				}
				pass(2 * time.Minute)
				_, err = w.Token(t.Context(), slot("acme"))
				require.ErrorIs(t, err, authflow.ErrReconnect)
				require.Contains(t, asError(t, err).Detail, "refresh the connection")
				require.Equal(t, authflow.NeedsReconnect, w.status("acme").Status)
				acquires := w.store.acquires.Load()
				pass(3 * time.Hour)
				require.Equal(t, acquires, w.store.acquires.Load(), "nor does the sweep look again and again")
				require.Zero(t, posts())

				seen, err = w.Refresh(t.Context(), slot("acme"))
				require.NoError(t, err)
				require.Equal(t, authflow.Active, seen.Status)
				require.Nil(t, seen.LastError)
				pass(55 * time.Minute)
				w.use(w.Broker, "acme")
				pass(2 * time.Hour)
				w.use(w.Broker, "acme")
				w.oncePerToken()
			})
		})
	}
}

func TestOperatorsWordCountsWhileARequestHasStartedARefresh(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.edit("acme", func(rec *tokenstore.Record) {
			rec.Intent = &tokenstore.Intent{Holder: "gone", Began: time.Now(), Deadline: time.Now().Add(2*time.Hour + 12*time.Second)}
		})
		pass(2 * time.Hour)
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }() // it waits for the holder that is gone
		synctest.Wait()
		rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
		require.NoError(t, err)
		prev := rec.Version()
		rec.Suspect = true
		require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), rec, prev))
		_, err = w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		w.use(w.Broker, "acme")
	})
}

func TestFailedAttemptLeavesAConnectionSuspect(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.suspect()
		w.sweep(w.Broker)
		w.provider.SetDown(true)
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		w.provider.SetDown(false)
		posts := w.posts()
		pass(2 * time.Hour)
		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Zero(t, posts())
	})
}

func TestSuspectIsNothingToAReusableTokenNorToANewGrant(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.suspect()
		require.Equal(t, authflow.Active, w.status("acme").Status)
		pass(2 * time.Hour)
		w.use(w.Broker, "acme")
	})
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.suspect()
		w.connect("acme")
		require.Equal(t, authflow.Active, w.status("acme").Status)
		pass(2 * time.Hour)
		w.use(w.Broker, "acme")
	})
}

func TestSuspectGrantThatIsRefusedIsDead(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.suspect()
		w.provider.Misbehave(authflowtest.OAuthError(400, "invalid_grant"))
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Equal(t, "invalid_grant", w.status("acme").LastError.Code)
	})
}
