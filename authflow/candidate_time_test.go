package authflow

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// bubble is a Broker over an in-memory store and provider, whose connection is alice's and for which mallory's grant waits.
func bubble(t *testing.T, refresh authflowtest.Refresh) (*Broker, *lossyStore, *authflowtest.Provider) {
	t.Helper()
	p := authflowtest.InMemory(t, authflowtest.Config{Refresh: refresh})
	store := &lossyStore{Backend: storetest.NewMemory()}
	in := &Integration{
		Name: "Graph", ClientID: p.ClientID(), ClientSecret: p.ClientSecret,
		Resolve: func(tokenstore.Org) (Endpoints, error) {
			return Endpoints{AuthorizationURL: p.AuthorizationURL, TokenURL: p.TokenURL, RevocationURL: p.RevocationURL}, nil
		},
	}
	b, err := New(Config{Store: store, PublicURL: "https://bifrost.test", Metrics: prometheus.NewRegistry(), Integrations: []*Integration{in}, Transport: p.Transport()})
	require.NoError(t, err)
	m := b.managed("Graph")
	ep, err := m.Resolve("acme")
	require.NoError(t, err)
	grant := func(user string) *tokenstore.Record {
		issued := p.Issue(user, "read")
		token := tokenstore.Token{Access: issued.Access, Refresh: issued.Refresh, Type: "Bearer", Expiry: issued.AccessExpires}
		return b.newGrant(m.Integration, ep, reply{token: token, account: user, received: time.Now()}, "ops")
	}
	first := grant("alice")
	_, err = b.saveGrant(t.Context(), acme, first, nil)
	require.NoError(t, err)
	require.NoError(t, b.await(t.Context(), m, acme, grant("mallory"), first.Grant, newSecret()))
	return b, store, p
}

func TestAConfirmedTokenThatHasExpiredIsRefreshed(t *testing.T) {
	for _, refresh := range []authflowtest.Refresh{authflowtest.Reusable, authflowtest.OneTime} {
		t.Run(string(refresh), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _, p := bubble(t, refresh)
				time.Sleep(6 * 24 * time.Hour)
				_, err := b.Confirm(t.Context(), acme, "", "ops")
				require.NoError(t, err)
				cred, err := b.Token(t.Context(), acme)
				require.NoError(t, err)
				require.NoError(t, b.Wait(t.Context()))
				issued, _ := p.Lookup(cred.Header()[len("Bearer "):])
				require.Equal(t, "mallory", issued.User)
				require.True(t, issued.Alive)
				require.Equal(t, 2, issued.Generation)
				require.Empty(t, p.Reuses())
			})
		})
	}
}

func TestACandidateWaitsForSevenDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _, p := bubble(t, authflowtest.Reusable)
		waits := func() *Awaiting {
			con, err := b.Connection(t.Context(), acme)
			require.NoError(t, err)
			require.NoError(t, b.Wait(t.Context()))
			return con.Awaiting
		}
		time.Sleep(7*24*time.Hour - time.Minute)
		require.NotNil(t, waits())
		time.Sleep(time.Minute)
		require.Nil(t, waits())
		require.Len(t, p.Revocations(), 1, "whoever looks next gives it back")
		_, err := b.Confirm(t.Context(), acme, "", "ops")
		require.ErrorIs(t, err, ErrNotAwaiting)

		b, _, p = bubble(t, authflowtest.Reusable)
		time.Sleep(7 * 24 * time.Hour)
		_, err = b.Confirm(t.Context(), acme, "", "ops")
		require.ErrorIs(t, err, ErrNotAwaiting, "nobody has looked, and it is late all the same")
		require.NoError(t, b.Wait(t.Context()))
		require.Len(t, p.Revocations(), 1)
	})
}

// A consent that nobody ever looked at again stayed valid at the provider after its time, for as long as a refresh token lives there.
func TestAConsentThatNobodyLooksAtIsGivenBackInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, p := bubble(t, authflowtest.Reusable)
		time.Sleep(7*24*time.Hour - time.Minute)
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 2 { // as two replicas would
			all.Go(func() { b.Run(ctx) })
		}
		time.Sleep(30 * time.Second)
		require.Empty(t, p.Revocations())
		time.Sleep(12 * time.Hour)
		require.Len(t, p.Revocations(), 1)
		_, err := store.Take(t.Context(), candidateID(acme))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
		stop()
		all.Wait()
		require.NoError(t, b.Wait(context.WithoutCancel(t.Context())))
	})
}

// lossyStore saves records, and then says what saved says; while away it does nothing.
type lossyStore struct {
	tokenstore.Backend
	away  atomic.Bool
	saved func(rec *tokenstore.Record) error // nil: the truth
}

func (s *lossyStore) Get(ctx context.Context, slot tokenstore.Slot) (*tokenstore.Record, error) {
	if s.away.Load() {
		return nil, tokenstore.ErrUnavailable
	}
	return s.Backend.Get(ctx, slot)
}

func (s *lossyStore) Save(ctx context.Context, slot tokenstore.Slot, rec *tokenstore.Record, prev tokenstore.Version) error {
	if s.away.Load() {
		return tokenstore.ErrUnavailable
	}
	if err := s.Backend.Save(ctx, slot, rec, prev); err != nil || s.saved == nil {
		return err
	}
	return s.saved(rec)
}

// A confirmation that the store did not take can be given again.
func TestAConfirmationDuringAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, p := bubble(t, authflowtest.OneTime)
		store.away.Store(true)
		_, err := b.Confirm(t.Context(), acme, "", "ops")
		require.ErrorIs(t, err, ErrStore)
		store.away.Store(false)
		con, err := b.Connection(t.Context(), acme)
		require.NoError(t, err)
		require.NotNil(t, con.Awaiting)
		_, err = b.Confirm(t.Context(), acme, "", "ops")
		require.NoError(t, err)
		require.Empty(t, p.Revocations())
	})
}

// Nobody learns whether the confirmation was stored: it was, so nothing may revoke it.
func TestAConfirmationWhoseAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, p := bubble(t, authflowtest.OneTime)
		store.saved = func(*tokenstore.Record) error { store.away.Store(true); return tokenstore.ErrUnavailable }
		_, err := b.Confirm(t.Context(), acme, "", "ops")
		require.ErrorIs(t, err, ErrStore)
		require.NoError(t, b.Reject(t.Context(), acme, "", "ops"), "what the connection has is not known either")
		store.saved = nil
		store.away.Store(false)
		con, err := b.Connection(t.Context(), acme) // which learns that the store is back
		require.NoError(t, err)
		require.Nil(t, con.Awaiting, "it is the connection")
		time.Sleep(6 * time.Second) // a change by who knows whom is felt within five
		cred, err := b.Token(t.Context(), acme)
		require.NoError(t, err)
		issued, _ := p.Lookup(cred.Header()[len("Bearer "):])
		require.Equal(t, "mallory", issued.User)
		require.NoError(t, b.Wait(t.Context()))
		require.Empty(t, p.Revocations())
	})
}

// A confirmation that was stored was told to have failed, to the operator and to the audit log, where the store failed right after.
func TestAConfirmationBeforeAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, _ := bubble(t, authflowtest.OneTime)
		store.saved = func(*tokenstore.Record) error { store.away.Store(true); return nil }
		con, err := b.Confirm(t.Context(), acme, "", "ops")
		require.NoError(t, err)
		require.Equal(t, Active, con.Status)
		store.saved = nil
		store.away.Store(false)
	})
}

// The answer to the write was lost, and another replica has refreshed the grant since: the second attempt stored the spent token
// over the fresh one.
func TestAGrantWhoseAnswerIsLostIsNotStoredOverItsRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, _ := bubble(t, authflowtest.OneTime)
		store.saved = func(rec *tokenstore.Record) error {
			fresh := *rec
			fresh.Generation, fresh.Write, fresh.Token.Access = 2, "another replica's", "CANARY-fresh"
			if err := store.Backend.Save(t.Context(), acme, &fresh, rec.Version()); err != nil {
				return err
			}
			return tokenstore.ErrUnavailable
		}
		_, err := b.Confirm(t.Context(), acme, "", "ops")
		require.NoError(t, err)
		rec, err := store.Backend.Get(t.Context(), acme)
		require.NoError(t, err)
		require.EqualValues(t, 2, rec.Generation)
		require.Equal(t, "CANARY-fresh", rec.Token.Access)
	})
}

// hangingUp ends a context as soon as a record has been deleted.
type hangingUp struct {
	tokenstore.Backend
	cancel context.CancelFunc
}

func (s hangingUp) Delete(ctx context.Context, slot tokenstore.Slot, prev tokenstore.Version) error {
	defer s.cancel()
	return s.Backend.Delete(ctx, slot, prev)
}

func TestADisconnectWhoseCallerHangsUpGivesBackWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, p := bubble(t, authflowtest.Reusable)
		ctx, cancel := context.WithCancel(t.Context())
		b.store = hangingUp{store, cancel}
		require.NoError(t, b.Disconnect(ctx, acme, "ops"))
		require.NoError(t, b.Wait(t.Context()))
		require.Len(t, p.Revocations(), 2, "the grant, and the one that waited to replace it")
		_, err := store.Take(t.Context(), candidateID(acme))
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	})
}

func TestALookThatCannotReadTheConnectionLeavesWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, p := bubble(t, authflowtest.Reusable)
		away := &lossyStore{Backend: store}
		away.away.Store(true)
		b.store = away
		b.clearCandidate(t.Context(), b.managed(acme.Integration), acme)
		require.NoError(t, b.Wait(t.Context()))
		require.Empty(t, p.Revocations())
		_, err := store.Take(t.Context(), candidateID(acme))
		require.NoError(t, err)
	})
}
