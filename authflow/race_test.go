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

// duringRefresh has a request start a refresh of acme's expired token and calls meanwhile after the provider has processed
// the POST and before it answers. It returns what the request got.
func (w *world) duringRefresh(meanwhile func()) (authflow.Credential, error) {
	pass(2 * time.Hour)
	gate := authflowtest.NewGate()
	w.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
	type result struct {
		cred authflow.Credential
		err  error
	}
	got := make(chan result)
	go func() {
		cred, err := w.Token(w.Context(), slot("acme"))
		got <- result{cred, err}
	}()
	<-gate.Arrived()
	meanwhile()
	gate.Release()
	r := <-got
	return r.cred, r.err
}

func TestReconnectDuringARefreshIsNotUndone(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		var second string
		cred, err := w.duringRefresh(func() { second = w.connect("acme") })
		require.NoError(t, err)
		require.Equal(t, second, w.alive(cred).Grant, "the old grant's late answer must not replace the new grant")
		require.Equal(t, second, w.token(w.use(w.Broker, "acme")).Grant)
	})
}

func TestDisconnectDuringARefreshIsNotUndone(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		grant := w.connect("acme")
		_, err := w.duringRefresh(func() {
			require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester"))
		})
		require.ErrorIs(t, err, authflow.ErrNotConnected)
		require.Equal(t, authflow.NotConnected, w.status("acme").Status)
		require.False(t, w.provider.GrantAlive(grant), "what nobody will use is revoked")
	})
}

func TestRefusalOfASupersededTokenIsNotBelieved(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		gate := authflowtest.NewGate()
		refused := authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant")
		refused.HoldAfter = gate
		w.provider.Misbehave(refused)
		go func() {
			<-gate.Arrived()
			// Another replica, which lost its lease to us while it was paused, stores what it got before our POST.
			rec, err := w.store.Backend.Get(t.Context(), slot("acme"))
			require.NoError(t, err)
			prev := rec.Version()
			issued := w.provider.Issue("acme", "read")
			rec.Generation++
			rec.Token.Access, rec.Token.Refresh = issued.Access, issued.Refresh
			rec.Refreshed, rec.Token.Expiry = time.Now(), issued.AccessExpires
			rec.Intent, rec.Failure, rec.Write = nil, nil, "theirs"
			require.NoError(t, w.store.Backend.Save(t.Context(), slot("acme"), rec, prev))
			gate.Release()
		}()
		w.use(w.Broker, "acme")
		require.Equal(t, authflow.Active, w.status("acme").Status)
	})
}

func TestUseNotedDuringARefreshDoesNotLoseTheToken(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		posts := w.posts()
		cred, err := w.duringRefresh(func() {
			w.edit("acme", func(rec *tokenstore.Record) { rec.Used, rec.Write = time.Now(), "a use noted elsewhere" })
		})
		require.NoError(t, err)
		w.alive(cred)
		require.Equal(t, 1, posts())
		w.oncePerToken()
	})
}

func TestLiveIntentOfAnotherHolderIsWaitedFor(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.edit("acme", func(rec *tokenstore.Record) {
			rec.Intent = &tokenstore.Intent{Holder: "paused", Began: time.Now(), Deadline: time.Now().Add(20 * time.Second)}
		})
		posts := w.posts()
		_, err := w.Token(t.Context(), slot("acme"))
		require.ErrorIs(t, err, authflow.ErrPending)
		require.Zero(t, posts(), "the other holder's POST may be on its way")
		w.use(w.Broker, "acme")
		require.Equal(t, 1, posts())
	})
}

func TestLiveIntentOnAReusableTokenHoldsNobodyBack(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		pass(2 * time.Hour)
		w.edit("acme", func(rec *tokenstore.Record) {
			rec.Intent = &tokenstore.Intent{Holder: "paused", Began: time.Now(), Deadline: time.Now().Add(time.Minute)}
		})
		began := time.Now()
		w.use(w.Broker, "acme")
		require.Zero(t, time.Since(began))
	})
}
