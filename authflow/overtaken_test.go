package authflow_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

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
