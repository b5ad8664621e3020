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

func TestPassingFaultLeavesTheTokenInUse(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.provider.MisbehaveAlways(authflowtest.Status(http.StatusServiceUnavailable, ""))
		pass(55 * time.Minute)
		stale := w.use(w.Broker, "acme")
		synctest.Wait()
		seen := w.status("acme")
		require.Equal(t, authflow.Degraded, seen.Status)
		require.NotNil(t, seen.LastError)
		require.Equal(t, stale.Header(), w.use(w.Broker, "acme").Header())

		pass(10 * time.Minute)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)

		w.provider.Behave()
		pass(15 * time.Second)
		w.use(w.Broker, "acme")
		seen = w.status("acme")
		require.Equal(t, authflow.Active, seen.Status)
		require.Nil(t, seen.LastError)
	})
}

func TestExpiredTokenCausesOnePostPerFiveSeconds(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.Status(http.StatusForbidden, ""))
		posts := w.posts()
		for range 300 {
			_, err := w.Token(t.Context(), slot("acme"))
			require.ErrorIs(t, err, authflow.ErrProvider)
			require.Positive(t, asError(t, err).RetryAfter)
			pass(100 * time.Millisecond)
		}
		require.InDelta(t, 6, posts(), 1)
	})
}

func TestEndpointThatKeepsFailingIsProbed(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		orgs := []tokenstore.Org{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
		for _, org := range orgs {
			w.connect(org)
		}
		pass(2 * time.Hour)
		w.provider.SetDown(true)
		w.provider.MisbehaveAlways(authflowtest.Status(http.StatusInternalServerError, ""))
		w.provider.SetDown(false)
		ask := func() {
			for _, org := range orgs {
				_, err := w.Token(t.Context(), slot(org))
				require.ErrorIs(t, err, authflow.ErrProvider)
			}
		}
		ask()
		posts := w.posts()
		for range 600 {
			ask()
			pass(100 * time.Millisecond)
		}
		require.LessOrEqual(t, posts(), 12, "one probe in 5 to 15 s, not one per connection")
		require.GreaterOrEqual(t, posts(), 4)

		w.provider.Behave()
		pass(15 * time.Second)
		for _, org := range orgs {
			w.use(w.Broker, org)
		}
	})
}

func TestRetryAfterIsObeyedAndAnOperatorIsNotHeldBack(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.Status(http.StatusTooManyRequests, "120"))
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		posts := w.posts()
		pass(110 * time.Second)
		_, err = w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		require.Zero(t, posts())
		_, err = w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.Equal(t, 1, posts())
	})
}

// A refresh by hand that was stored was told to have failed, to the operator and to the audit log, where the store failed right after.
func TestARefreshByHandBeforeAnOutageIsToldAsDone(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		before := w.status("acme")
		pass(time.Minute)
		goAway := func() { w.store.down.Store(true) }
		intent := func() { w.store.afterSave.Store(&goAway) }
		w.store.afterSave.Store(&intent)
		con, err := w.Refresh(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.True(t, w.store.down.Load())
		require.Equal(t, authflow.Active, con.Status)
		require.Equal(t, time.Minute, con.LastRefresh.Sub(before.LastRefresh))
		require.Equal(t, time.Minute, con.ExpiresAt.Sub(before.ExpiresAt))
	})
}

func TestDeadGrantServesItsTokenToTheEnd(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.provider.Misbehave(authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant"))
		pass(55 * time.Minute)
		w.use(w.Broker, "acme")
		synctest.Wait()
		seen := w.status("acme")
		require.Equal(t, authflow.NeedsReconnect, seen.Status)
		require.Equal(t, "invalid_grant", seen.LastError.Code)

		posts := w.posts()
		for range 100 {
			w.use(w.Broker, "acme")
			synctest.Wait()
		}
		pass(5 * time.Minute)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Zero(t, posts(), "a dead grant is not asked for again")

		w.connect("acme")
		w.use(w.Broker, "acme")
	})
}

func TestRefusedClientChangesNoConnection(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		orgs := []tokenstore.Org{"a", "b", "c", "d", "e"}
		for _, org := range orgs {
			w.connect(org)
		}
		second, _ := w.replica()
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		pass(2 * time.Hour)
		posts := w.posts()
		for range 179 {
			for _, org := range orgs {
				for _, b := range []*authflow.Broker{w.Broker, second} {
					_, err := b.Token(t.Context(), slot(org))
					require.ErrorIs(t, err, authflow.ErrClient)
				}
				require.Equal(t, authflow.Active, w.status(org).Status)
			}
			pass(time.Second)
		}
		require.LessOrEqual(t, posts(), 3, "one probe a minute for the integration, all replicas together")

		fixed := w.integration
		fixed.ClientSecret = func() string { return "CANARY-rotated-at-the-provider" }
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&fixed}))
		for _, org := range orgs {
			w.use(w.Broker, org)
		}
	})
}

func TestUnknownOutcomeOfAReusableTokenIsTriedAgainAtOnce(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.DropAfter())
		posts := w.posts()
		w.use(w.Broker, "acme")
		require.Equal(t, 2, posts())
	})
}

func TestUnknownOutcomeOfAOneTimeTokenWaitsForTheHardThreshold(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		posts := w.posts()
		w.provider.Misbehave(authflowtest.DropAfter())
		pass(55 * time.Minute)
		for range 100 {
			w.use(w.Broker, "acme")
			synctest.Wait()
			pass(time.Second)
		}
		require.Equal(t, 1, posts(), "a second POST could cost the grant while the token still serves")
		require.True(t, w.provider.GrantAlive(grant))
		require.Equal(t, authflow.Degraded, w.status("acme").Status)

		pass(5 * time.Minute)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect, "the last attempt met the provider's refusal")
		require.Equal(t, 2, posts())
	})
}

func TestUnknownOutcomeThatWasNotProcessedHeals(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.provider.Misbehave(authflowtest.DropBefore())
		pass(55 * time.Minute)
		w.use(w.Broker, "acme")
		synctest.Wait()
		pass(5 * time.Minute)
		w.use(w.Broker, "acme")
		require.Equal(t, authflow.Active, w.status("acme").Status)
		require.Empty(t, w.provider.Reuses())
	})
}

func TestRefusedConnectionsAreNotAnUnknownOutcome(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.provider.SetDown(true)
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrProvider)
		w.provider.SetDown(false)
		pass(6 * time.Second)
		w.use(w.Broker, "acme")
	})
}

func TestTokenWithoutRefreshTokenExpires(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.edit("acme", func(rec *tokenstore.Record) { rec.Token.Refresh = "" })
		require.Equal(t, authflow.Expiring, w.status("acme").Status)
		w.use(w.Broker, "acme")
		pass(2 * time.Hour)
		posts := w.posts()
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Equal(t, authflow.NeedsReconnect, w.status("acme").Status)
		require.Zero(t, posts())
	})
}

func TestGrantOfAnotherClientIsNotSentToThisOne(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		other := w.integration
		other.ClientID = "another-client"
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&other}))
		w.use(w.Broker, "acme") // what it has is used to its end
		require.Equal(t, authflow.NeedsReconnect, w.status("acme").Status)
		pass(2 * time.Hour)
		posts := w.posts()
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		require.Zero(t, posts())

		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&w.integration}))
		w.use(w.Broker, "acme")
	})
}

func asError(t *testing.T, err error) *authflow.Error {
	t.Helper()
	var e *authflow.Error
	require.ErrorAs(t, err, &e)
	return e
}
