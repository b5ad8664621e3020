package authflow_test

import (
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// graceful is a provider at which a used refresh token stays usable for a minute: a POST may take 20 s, a lease lasts 10 s.
var graceful = settings{
	provider: authflowtest.Config{Refresh: authflowtest.Rotating, Grace: time.Minute},
	integration: func(in *authflow.Integration) {
		in.Refresh, in.RefreshGrace = authflow.Rotating, time.Minute
	},
}

// crashed has acme's connection look as a holder of the lease leaves it who POSTed its refresh token so long ago, and died.
func (w *world) crashed(ago time.Duration) {
	w.Helper()
	rec, err := w.store.Backend.Get(w.Context(), slot("acme"))
	require.NoError(w, err)
	w.provider.Misbehave(authflowtest.DropAfter())
	post(w, rec.Token.Refresh)
	pass(ago - 5*time.Second) // edit takes the rest
	w.edit("acme", func(rec *tokenstore.Record) {
		rec.Intent = &tokenstore.Intent{Holder: "dead", Began: time.Now().Add(5*time.Second - ago), Deadline: time.Now().Add(30*time.Second - ago)}
	})
}

func TestRotatingTokenIsTakenOverAtOnce(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		pass(2 * time.Hour)
		w.crashed(6 * time.Second)
		began := time.Now()
		w.use(w.Broker, "acme")
		require.Zero(t, time.Since(began), "the provider takes the token again")
		require.True(t, w.provider.GrantAlive(grant))
	})
}

func TestRotatingTokenIsNotUsedAgainAfterItsGraceWhileTheAccessTokenServes(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		pass(55 * time.Minute)
		w.crashed(41 * time.Second)
		w.sweep(w.Broker)
		posts := w.posts()
		for range 60 {
			w.use(w.Broker, "acme")
			synctest.Wait()
			pass(time.Second)
		}
		require.Zero(t, posts())
		require.True(t, w.provider.GrantAlive(grant))
		pass(5 * time.Minute)
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrReconnect, "there was nothing left to lose")
		require.Equal(t, 1, posts())
	})
}

// The provider counts the grace from the first use: a take-over must not begin it anew.
func TestTakeOversCountFromTheFirstPost(t *testing.T) {
	for name, answer := range map[string]authflowtest.Behaviour{
		"no answer":  authflowtest.DropAfter(),
		"a bad one":  {Rewrite: func(a *authflowtest.Answer) { a.Status = http.StatusBadGateway }},
		"half a one": authflowtest.CutBody(),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, graceful, func(t *testing.T, w *world) {
				grant := w.connect("acme")
				pass(55 * time.Minute)
				w.provider.MisbehaveAlways(answer)
				posts := w.posts()
				for range 180 {
					w.use(w.Broker, "acme")
					synctest.Wait()
					pass(time.Second)
				}
				require.GreaterOrEqual(t, posts(), 3, "inside the grace it is tried again")
				require.True(t, w.provider.GrantAlive(grant))
				require.Empty(t, w.provider.Reuses())
				require.Equal(t, authflow.Degraded, w.status("acme").Status)
			})
		})
	}
}

func TestAnUnknownOutcomeIsNotForgottenByAnAttemptThatWasNotProcessed(t *testing.T) {
	for name, s := range map[string]settings{"one-time": rotating, "rotating": graceful} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, s, func(t *testing.T, w *world) {
				grant := w.connect("acme")
				pass(55 * time.Minute)
				w.crashed(41 * time.Second)
				w.provider.SetDown(true)
				_, err := w.Refresh(t.Context(), slot("acme"))
				require.ErrorIs(t, err, authflow.ErrProvider)
				w.provider.SetDown(false)
				pass(time.Minute)
				for range 10 {
					w.use(w.Broker, "acme")
					synctest.Wait()
					pass(time.Second)
				}
				require.True(t, w.provider.GrantAlive(grant), "the first outcome is still unknown")
			})
		})
	}
}

func TestLastAttemptOfUnknownOutcomeLeavesTheConnectionAlive(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.Status(503, "")) // it may have spent the token, and has not
		for range 60 {
			_, err := w.Token(t.Context(), slot("acme"))
			require.ErrorIs(t, err, authflow.ErrProvider)
			require.NotEqual(t, authflow.NeedsReconnect, w.status("acme").Status)
			pass(5 * time.Second)
		}
		w.provider.Behave()
		pass(15 * time.Second)
		w.use(w.Broker, "acme")
	})
}

func TestStoreThatMayHaveLostAnIntentIsWaitedFor(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		since := time.Now()
		w.store.since.Store(&since)
		posts := w.posts()
		for range 3 {
			_, err := w.Token(t.Context(), slot("acme"))
			require.ErrorIs(t, err, authflow.ErrPending)
		}
		require.Zero(t, posts(), "who held the lease before may be redeeming the token")
		w.use(w.Broker, "acme")
		require.Equal(t, 35*time.Second, time.Since(since).Truncate(time.Second))
		require.Equal(t, 1, posts())
	})
}

// After Redis was restarted each due connection asked it three times a second for as long as that lasted, although the first
// answer had said how long.
func TestStoreThatMayHaveLostAnIntentIsNotAskedAgainAndAgain(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		w.use(w.Broker, "acme")
		w.sweep(w.Broker)
		pass(49 * time.Minute) // nearly due
		since := time.Now().Add(3 * time.Minute)
		w.store.since.Store(&since) // until long after
		posts, acquires := w.posts(), w.store.acquires.Load()
		for time.Since(since) < 30*time.Second {
			w.use(w.Broker, "acme")
			pass(500 * time.Millisecond)
		}
		require.Zero(t, posts())
		require.LessOrEqual(t, w.store.acquires.Load()-acquires, int32(2), "the request's and the sweep's")
		for time.Since(since) < 40*time.Second {
			w.use(w.Broker, "acme")
			pass(500 * time.Millisecond)
		}
		require.Equal(t, 1, posts())
	})
}

func TestStoreThatMayHaveLostAnIntentHoldsAReusableTokenNotBack(t *testing.T) {
	for name, s := range map[string]settings{"reusable": {}, "rotating": graceful} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, s, func(t *testing.T, w *world) {
				w.connect("acme")
				pass(2 * time.Hour)
				since := time.Now()
				w.store.since.Store(&since)
				w.use(w.Broker, "acme")
				require.Zero(t, time.Since(since))
			})
		})
	}
}

func TestLeaseOutlivesASlowProvider(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		w.provider.Misbehave(authflowtest.SlowAfter(19 * time.Second))
		pass(2 * time.Hour)
		posts := w.posts()
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
		synctest.Wait()
		pass(10 * time.Second)
		w.use(second, "acme")
		require.Equal(t, 1, posts(), "the lease alone would have lasted 10 s")
		require.NoError(t, w.Wait(t.Context()))
		renewals := w.store.renewals.Load()
		pass(time.Minute)
		require.Equal(t, renewals, w.store.renewals.Load(), "nothing is renewed that is released")
	})
}

func TestLeaseIsKeptUntilTheTokenIsStored(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.SlowAfter(time.Second))
		go func() {
			pass(500 * time.Millisecond)
			w.store.readOnly.Store(true)
		}()
		w.use(w.Broker, "acme")
		pass(3 * time.Minute)
		_, err := w.store.Backend.Acquire(t.Context(), slot("acme"), time.Second)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
		w.store.readOnly.Store(false)
		require.NoError(t, w.Wait(t.Context()))
		lease, err := w.store.Backend.Acquire(t.Context(), slot("acme"), time.Second)
		require.NoError(t, err)
		require.NoError(t, w.store.Backend.Release(t.Context(), lease))
	})
}

func TestLeaseThatIsLostIsNoError(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		w.connect("acme")
		w.store.loseLeases.Store(true)
		cred, err := w.duringRefresh(func() { pass(9 * time.Second) })
		require.NoError(t, err)
		w.alive(cred)
		require.Equal(t, authflow.Active, w.status("acme").Status)
	})
}

// Two replicas redeem the same refresh token inside its grace, because the first has lost its lease. Which answer comes first is
// chance; which stands is not.
func TestTokenReceivedUnderTheLaterLeaseStands(t *testing.T) {
	for name, laterIsSlow := range map[string]bool{"stored last": true, "stored first": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, graceful, func(t *testing.T, w *world) {
				w.connect("acme")
				second, _ := w.replica()
				pass(2 * time.Hour)
				w.store.loseLeases.Store(true)
				early, late := authflowtest.NewGate(), authflowtest.NewGate()
				w.provider.Misbehave(authflowtest.Behaviour{HoldAfter: early}, authflowtest.Behaviour{HoldAfter: late})
				go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
				<-early.Arrived()
				pass(10 * time.Second) // until the lease has run out
				go func() { _, _ = second.Token(t.Context(), slot("acme")) }()
				<-late.Arrived()
				if laterIsSlow {
					early.Release()
					synctest.Wait()
					late.Release()
				} else {
					late.Release()
					synctest.Wait()
					early.Release()
				}
				require.NoError(t, w.Wait(t.Context()))
				require.NoError(t, second.Wait(t.Context()))
				pass(5 * time.Second)
				for _, b := range []*authflow.Broker{w.Broker, second} {
					require.Equal(t, 3, w.token(w.use(b, "acme")).Generation, "at the provider: the answer to the second POST")
				}
				rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
				require.NoError(t, err)
				require.EqualValues(t, 2, rec.Generation)
				require.Positive(t, rec.Fence)
			})
		})
	}
}

func TestRefusalWhileALaterHolderRedeemsTheTokenDecidesNothing(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		pass(2 * time.Hour)
		w.store.loseLeases.Store(true)
		early, late := authflowtest.NewGate(), authflowtest.NewGate()
		refused := authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant")
		refused.HoldBefore = early
		w.provider.Misbehave(refused, authflowtest.Behaviour{HoldAfter: late})
		go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
		<-early.Arrived()
		pass(10 * time.Second)
		go func() { _, _ = second.Token(t.Context(), slot("acme")) }()
		<-late.Arrived()
		early.Release()
		synctest.Wait()
		require.Equal(t, authflow.Degraded, w.status("acme").Status)
		late.Release()
		synctest.Wait()
		require.Equal(t, authflow.Active, w.status("acme").Status)
		pass(5 * time.Second)
		w.use(w.Broker, "acme")
	})
}

func TestLogTellsWhichGenerationTheStoreHasAcknowledged(t *testing.T) {
	inWorld(t, graceful, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.provider.Misbehave(authflowtest.SlowAfter(time.Second))
		go func() {
			pass(500 * time.Millisecond)
			w.store.readOnly.Store(true)
		}()
		w.use(w.Broker, "acme")
		const line = `"msg":"a token was refreshed","integration":"graph","org":"acme","generation":2}`
		require.NotContains(t, w.logs.String(), line)
		w.store.readOnly.Store(false)
		require.NoError(t, w.Wait(t.Context()))
		require.Contains(t, w.logs.String(), line)
		require.NotContains(t, w.logs.String(), "CANARY")
	})
}

// post redeems a refresh token beside every replica.
func post(w *world, refreshToken string) {
	res, err := w.provider.Client().PostForm(w.provider.TokenURL, url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {refreshToken},
		"client_id": {w.provider.ClientID()}, "client_secret": {w.provider.ClientSecret()},
	})
	if err == nil {
		require.NoError(w, res.Body.Close())
	}
}
