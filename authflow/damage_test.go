package authflow_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestDamagedRecordIsAnErrorThatOnlyAPersonMends(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect(tokenstore.Global)
		w.connect("acme")
		cold, _ := w.replica()
		w.store.damaged.Store(true)
		_, err := cold.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrUnreadable, "and never the global connection")

		grant := w.connect("acme") // a new consent replaces what nobody can read
		w.store.damaged.Store(false)
		pass(5 * time.Second)
		require.Equal(t, grant, w.token(w.use(cold, "acme")).Grant)

		w.store.damaged.Store(true)
		require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"))
		w.store.damaged.Store(false)
		require.Equal(t, authflow.NotConnected, w.status("acme").Status)
	})
}

func TestOperatorsAttemptsAreNotCountedAgainstTheEndpoint(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		w.connect("globex")
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.Status(http.StatusInternalServerError, ""))
		for range 10 {
			_, err := w.Refresh(t.Context(), slot("acme"))
			require.ErrorIs(t, err, authflow.ErrProvider)
		}
		w.provider.Behave()
		w.use(w.Broker, "globex")
	})
}
