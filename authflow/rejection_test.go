package authflow_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// Each replica used to make a probe of its own when the minute was over, and one that had not been asked meanwhile as many as
// there were requests.
func TestRefusedClientIsProbedOnceAMinuteByAllReplicas(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		orgs := w.connectMany(50)
		second, _ := w.replica()
		third, _ := w.replica()
		replicas := []*authflow.Broker{w.Broker, second, third}
		for _, b := range replicas {
			w.sweep(b)
		}
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(time.Second))
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot(orgs[0]))
		require.ErrorIs(t, err, authflow.ErrClient)

		posts := w.posts()
		askAll := func() {
			var all sync.WaitGroup
			for _, b := range replicas {
				for _, org := range orgs {
					all.Go(func() {
						_, err := b.Token(t.Context(), slot(org))
						require.ErrorIs(t, err, authflow.ErrClient)
						require.Positive(t, asError(t, err).RetryAfter)
					})
				}
			}
			all.Wait()
		}
		const minutes = 10
		for began := time.Now(); time.Since(began) < minutes*time.Minute; pass(time.Second) {
			askAll()
		}
		require.LessOrEqual(t, posts(), minutes)
		require.GreaterOrEqual(t, posts(), minutes/2)
		for _, org := range orgs {
			require.Equal(t, authflow.Active, w.status(org).Status)
		}

		fixed := w.integration
		fixed.ClientSecret = func() string { return "CANARY-rotated-at-the-provider" }
		for _, b := range replicas {
			require.NoError(t, b.SetIntegrations([]*authflow.Integration{&fixed}))
			began := time.Now()
			w.use(b, orgs[0])
			require.Less(t, time.Since(began), 2*time.Second)
		}
		for _, org := range orgs {
			w.use(second, org)
		}
		w.provider.Behave()
	})
}

// All that were due at once used to be refused together before the first refusal was known.
func TestOnePostFindsOutWhetherAClientIsAccepted(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		var slots []tokenstore.Slot
		for _, org := range w.connectMany(50) {
			slots = append(slots, slot(org))
		}
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(500 * time.Millisecond))
		pass(2 * time.Hour)
		posts := w.posts()
		for answer := range w.askAll(slots) {
			require.ErrorIs(t, answer.err, authflow.ErrClient)
			require.LessOrEqual(t, answer.took, 600*time.Millisecond)
		}
		require.Equal(t, 1, posts())
		synctest.Wait() // until these refreshes have ended altogether

		fixed := w.integration
		fixed.ClientSecret = func() string { return "CANARY-rotated-at-the-provider" }
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&fixed}))
		began := time.Now()
		for answer := range w.askAll(slots) {
			require.NoError(t, answer.err)
		}
		require.LessOrEqual(t, time.Since(began), 3*time.Second, "one after half a second, then as many at a time as ever")
	})
}

func TestSlowAnswerDelaysOtherPostsOfItsClientByNoMoreThanASecond(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		orgs := w.connectMany(3)
		pass(2 * time.Hour)
		gate := authflowtest.NewGate()
		w.provider.Misbehave(authflowtest.Behaviour{HoldBefore: gate})
		go func() { _, _ = w.Token(t.Context(), slot(orgs[0])) }()
		<-gate.Arrived()
		began := time.Now()
		w.use(w.Broker, orgs[1])
		require.LessOrEqual(t, time.Since(began), time.Second)
		began = time.Now()
		w.use(w.Broker, orgs[2])
		require.Zero(t, time.Since(began), "the client is accepted")
		gate.Release()
	})
}

func TestClientThatIsAcceptedAgainIsSoForAllReplicas(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		orgs := w.connectMany(4)
		second, _ := w.replica()
		secret := w.provider.ClientSecret()
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		pass(2 * time.Hour)
		for _, b := range []*authflow.Broker{w.Broker, second} {
			_, err := b.Token(t.Context(), slot(orgs[0]))
			require.ErrorIs(t, err, authflow.ErrClient)
		}
		w.provider.SetClientSecret(secret)
		w.store.takeTime.Store(int64(100 * time.Millisecond))
		pass(61 * time.Second)
		for i, b := range []*authflow.Broker{w.Broker, second, w.Broker, second} {
			w.use(b, orgs[i])
		}
	})
}

// A provider that refuses a grant has accepted who asked for it. The refusal used to count for nothing, so that grants that had
// died meanwhile took the probes of one minute after the other from the others.
func TestClientIsAcceptedByAnswersThatRefuseAGrant(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		revoked := w.connect("revoked")
		orgs := w.connectMany(2)
		second, _ := w.replica()
		secret := w.provider.ClientSecret()
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot(orgs[0]))
		require.ErrorIs(t, err, authflow.ErrClient)
		w.provider.SetClientSecret(secret)
		w.provider.RevokeGrant(revoked)
		pass(61 * time.Second)
		_, err = w.Token(t.Context(), slot("revoked"))
		require.ErrorIs(t, err, authflow.ErrReconnect)
		w.use(w.Broker, orgs[0])
		w.use(second, orgs[1])
	})
}

func TestReplicaThatMetAnothersProbeSoonLooksAgain(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		orgs := w.connectMany(2)
		second, _ := w.replica()
		secret := w.provider.ClientSecret()
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		pass(2 * time.Hour)
		_, err := w.Token(t.Context(), slot(orgs[0]))
		require.ErrorIs(t, err, authflow.ErrClient)
		w.provider.SetClientSecret(secret)
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(time.Second))
		pass(61 * time.Second)
		go func() { _, _ = w.Token(t.Context(), slot(orgs[0])) }() // ends with its answer
		synctest.Wait()
		_, err = second.Token(t.Context(), slot(orgs[1]))
		require.ErrorIs(t, err, authflow.ErrClient)
		pass(1500 * time.Millisecond)
		w.use(second, orgs[1])
	})
}

func TestRefusedClientDoesNotKeepTheTokensInUseFromRequests(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.sweep(w.Broker)
		w.provider.SetClientSecret("CANARY-rotated-at-the-provider")
		for range 59 {
			w.use(w.Broker, tokenstore.Org("acme"))
			pass(time.Minute)
		}
		require.Equal(t, authflow.Active, w.status("acme").Status)
		require.NotNil(t, w.status("acme").LastError)
	})
}
