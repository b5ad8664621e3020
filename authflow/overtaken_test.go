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

func TestRefreshOfTheOldGrantUndoesNoReconnectWhileTheStoreIsAway(t *testing.T) {
	for _, answer := range []string{"granted", "invalid_grant"} {
		t.Run(answer, func(t *testing.T) {
			inWorld(t, rotating, func(t *testing.T, w *world) {
				w.connect("acme")
				pass(2 * time.Hour)
				gate := authflowtest.NewGate()
				answers := authflowtest.Behaviour{HoldAfter: gate}
				if answer != "granted" {
					answers = authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant")
					answers.HoldBefore = gate
				}
				w.provider.Misbehave(answers)
				go func() { _, _ = w.Token(t.Context(), slot("acme")) }()
				<-gate.Arrived()
				second := w.connect("acme")
				require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
				w.store.down.Store(true)
				gate.Release()
				synctest.Wait()
				require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
				pass(20 * time.Second)
				require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
			})
		})
	}
}

func TestReadOvertakenByTheFeedIsStillUsed(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		second, _ := w.replica()
		w.connect(tokenstore.Global)
		require.Equal(t, tokenstore.Global, w.use(second, "acme").Slot.Org)
		w.connect("acme")
		pass(30 * time.Second)
		w.sweep(second)
		synctest.Wait()
		noted := func() {
			rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
			require.NoError(t, err)
			prev := rec.Version()
			rec.Used = time.Now()
			require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), rec, prev))
			pass(100 * time.Millisecond) // until the Feed has told of it
		}
		w.store.afterGet.Store(&noted)
		require.Equal(t, tokenstore.Org("acme"), w.use(second, "acme").Slot.Org)
	})
}

func TestGrantThatWaitedForTheStoreDoesNotReplaceALaterOne(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		second, _ := w.replica()
		gate := authflowtest.NewGate()
		w.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
		earlier, later := w.provider.Issue("acme", "read"), w.provider.Issue("acme", "read")
		go func() { _, _ = w.Import(t.Context(), slot("acme"), earlier.Refresh, "tester") }()
		<-gate.Arrived()
		w.store.down.Store(true)
		gate.Release()
		pass(3250 * time.Millisecond)
		w.store.down.Store(false)
		_, err := second.Import(t.Context(), slot("acme"), later.Refresh, "tester")
		require.NoError(t, err)
		pass(15 * time.Second)
		require.Equal(t, later.Grant, w.token(w.use(w.Broker, "acme")).Grant)
	})
}

func TestClientCredentialsFollowTheConfiguration(t *testing.T) {
	s := settings{integration: func(in *authflow.Integration) {
		in.Flow = authflow.ClientCredentials
		in.Own = func(org tokenstore.Org) bool { return org == "acme" }
	}}
	inWorld(t, s, func(t *testing.T, w *world) {
		old, err := w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		synctest.Wait() // until its refresh has ended altogether
		moved := w.integration
		moved.Resolve = func(tokenstore.Org) (authflow.Endpoints, error) {
			return authflow.Endpoints{TokenURL: w.provider.TokenURL + "?tenant=other"}, nil
		}
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&moved}))
		_, err = w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		synctest.Wait()
		fresh, err := w.Token(t.Context(), slot("acme"))
		require.NoError(t, err)
		require.NotEqual(t, old.Header(), fresh.Header(), "the old one is another tenant's")

		common := w.integration
		common.Own = nil // acme uses the global connection from now on
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&common}))
		w.sweep(w.Broker)
		mints := w.provider.Count("client_credentials")
		pass(3 * time.Hour)
		require.Equal(t, mints, w.provider.Count("client_credentials"))
	})
}
