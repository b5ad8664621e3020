package authflow_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestBurstOfRejectionsCausesOneRefresh(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		rejected := w.use(w.Broker, "acme")
		posts := w.posts()
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				fresh, err := w.Replace(t.Context(), rejected)
				if err != nil {
					t.Error(err)
					return
				}
				w.alive(fresh)
			})
		}
		all.Wait()
		require.Equal(t, 1, posts())
	})
}

func TestRejectionForcesOneRefreshPerMinute(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		posts := w.posts()
		fresh, err := w.Replace(t.Context(), w.use(w.Broker, "acme"))
		require.NoError(t, err)
		for _, b := range []*authflow.Broker{w.Broker, second} {
			_, err = b.Replace(t.Context(), fresh)
			require.ErrorIs(t, err, authflow.ErrProvider)
		}
		require.Equal(t, 1, posts())
		pass(time.Minute)
		_, err = second.Replace(t.Context(), fresh)
		require.NoError(t, err)
		require.Equal(t, 2, posts())
	})
}

func TestRejectionFindsWhatAnotherReplicaRefreshed(t *testing.T) {
	s := rotating
	s.provider.AccessDies = true
	inWorld(t, s, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		stale := w.use(second, "acme")
		_, err := w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		posts := w.posts()
		fresh, err := second.Replace(t.Context(), stale)
		require.NoError(t, err)
		w.alive(fresh)
		require.Zero(t, posts())
	})
}

func TestClientCredentialsAreMintedOnUseAndAgainOnExpiry(t *testing.T) {
	inWorld(t, settings{integration: func(in *authflow.Integration) { in.Flow = authflow.ClientCredentials }}, func(t *testing.T, w *world) {
		mints := func() int { return w.provider.Count("client_credentials") }
		require.Equal(t, authflow.NotConnected, w.status("@global").Status)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				cred, err := w.Token(t.Context(), slot("acme"))
				if err != nil {
					t.Error(err)
					return
				}
				if cred.Slot != slot("@global") {
					t.Errorf("an org without values of its own uses the default's token, got %v", cred.Slot)
				}
			})
		}
		all.Wait()
		require.Equal(t, 1, mints())
		require.Equal(t, authflow.Active, w.status("@global").Status)
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, 2, mints())
	})
}

func TestClientCredentialsOfAnOrgWithItsOwnValues(t *testing.T) {
	s := settings{integration: func(in *authflow.Integration) {
		in.Flow = authflow.ClientCredentials
		in.Own = func(org tokenstore.Org) bool { return org == "acme" }
	}}
	inWorld(t, s, func(t *testing.T, w *world) {
		cred, err := w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, slot("acme"), cred.Slot)

		w.provider.MisbehaveAlways(authflowtest.Status(500, ""))
		pass(2 * time.Hour)
		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider, "a broken own connection does not fall back")
		require.Equal(t, authflow.Degraded, w.status("acme").Status)

		_, err = w.Token(t.Context(), slot("globex"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		require.NotNil(t, w.status("@global").LastError)
	})
}

func TestImportIsProvenByOneRefresh(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		posts := w.posts()
		issued := w.provider.Issue("acme", "read")
		seen, err := w.Import(t.Context(), slot("acme"), issued.Refresh, "ops")
		require.NoError(t, err)
		require.Equal(t, authflow.Active, seen.Status)
		require.Equal(t, "ops", seen.ConnectedBy)
		require.Equal(t, issued.Grant, w.token(w.use(w.Broker, "acme")).Grant)
		require.Equal(t, 1, posts())

		_, err = w.Import(t.Context(), slot("acme"), "CANARY-unknown", "ops")
		require.ErrorIs(t, err, authflow.ErrGrantRefused)
		require.Equal(t, issued.Grant, w.token(w.use(w.Broker, "acme")).Grant)
	})
}

// An import of the token that a refresh was just redeeming POSTed it a second time, and the provider revoked the grant.
func TestImportDoesNotRaceARefresh(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		issued := w.provider.Issue("acme", "read")
		require.NoError(t, w.Consented(t.Context(), slot("acme"), issued.Access, issued.Refresh, issued.AccessExpires, issued.Scopes))
		_, err := w.Import(t.Context(), slot("acme"), issued.Refresh, "ops")
		require.ErrorIs(t, err, authflow.ErrGrantRefused)

		cred, err := w.duringRefresh(func() {
			_, err := w.Import(t.Context(), slot("acme"), issued.Refresh, "ops")
			require.ErrorIs(t, err, authflow.ErrPending)
		})
		require.ErrorIs(t, err, authflow.ErrPending, "the gate held the refresh for longer than a request waits")
		require.Zero(t, cred)
		w.use(w.Broker, "acme")
		w.oncePerToken()
	})
}
