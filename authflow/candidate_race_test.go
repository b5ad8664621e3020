package authflow

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Whatever is done at once, on whichever replica: one outcome, the store and the provider agree with it, and what was stored was not
// revoked.
func TestAConfirmationHappensOnce(t *testing.T) {
	ctx := t.Context()
	seen := ""
	confirm := func(b *Broker) error { _, err := b.Confirm(ctx, acme, seen, "ops"); return err }
	reject := func(b *Broker) error { return b.Reject(ctx, acme, seen, "ops") }
	disconnect := func(b *Broker) error { return b.Disconnect(ctx, acme, "ops") }
	for storeName, stores := range map[string]func(*testing.T) [2]tokenstore.Backend{"Redis": twoRedis, "file": oneFile} {
		for name, other := range map[string]func(*Broker) error{"confirm": confirm, "reject": reject, "disconnect": disconnect, "reconnect": nil} {
			t.Run(storeName+"/confirm against "+name, func(t *testing.T) {
				both := stores(t)
				e, user := pendingAccounts(t, consentSetup{store: &faultyStore{Backend: both[0]}})
				second := e.newBroker(both[1])
				seen = e.waits().ID
				var callback string
				b := e.newBrowser()
				if other == nil {
					*user = "alice"
					callback = b.consent(e.link())
					other = func(*Broker) error { b.get(callback); return nil }
				}
				var confirmed, others atomic.Int64
				var all sync.WaitGroup
				begin := make(chan struct{})
				for range 4 {
					all.Go(func() {
						<-begin
						if confirm(second) == nil {
							confirmed.Add(1)
						}
					})
					all.Go(func() {
						<-begin
						if other(e.broker) == nil {
							others.Add(1)
						}
					})
				}
				close(begin)
				all.Wait()
				require.NoError(t, second.Wait(t.Context()))
				require.NoError(t, e.broker.Wait(t.Context()))
				e.agreed(name, int(confirmed.Load()), int(others.Load()))
			})
		}
	}
}

// agreed checks the end of a race of confirmations with something else.
func (e *consentEnv) agreed(other string, confirmed, others int) {
	e.t.Helper()
	rec := e.stored(acme)
	switch other {
	case "confirm":
		require.Equal(e.t, 1, confirmed+others)
	case "reject":
		require.Equal(e.t, 1, confirmed+others)
		name, alive := e.userOf(rec)
		require.True(e.t, alive)
		require.Equal(e.t, map[int]string{0: "alice", 1: "mallory"}[confirmed], name)
	case "disconnect":
		require.Nil(e.t, rec, "whichever came first")
	case "reconnect":
		// A confirmation that came first has made the connection mallory's, and alice waits now; else she has it, anew.
		name, alive := e.userOf(rec)
		require.True(e.t, alive)
		require.Equal(e.t, map[int]string{0: "alice", 1: "mallory"}[confirmed], name)
		require.Equal(e.t, confirmed == 1, e.waits() != nil)
		return
	}
	require.Nil(e.t, e.waits())
}
