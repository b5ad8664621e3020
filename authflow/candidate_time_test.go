package authflow

import (
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
func bubble(t *testing.T, refresh authflowtest.Refresh) (*Broker, *storetest.Memory, *authflowtest.Provider) {
	t.Helper()
	p := authflowtest.InMemory(t, authflowtest.Config{Refresh: refresh})
	store := storetest.NewMemory()
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
				_, err := b.Confirm(t.Context(), acme, "ops")
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
		_, err := b.Confirm(t.Context(), acme, "ops")
		require.ErrorIs(t, err, ErrNotAwaiting)

		b, _, p = bubble(t, authflowtest.Reusable)
		time.Sleep(7 * 24 * time.Hour)
		_, err = b.Confirm(t.Context(), acme, "ops")
		require.ErrorIs(t, err, ErrNotAwaiting, "nobody has looked, and it is late all the same")
		require.NoError(t, b.Wait(t.Context()))
		require.Len(t, p.Revocations(), 1)
	})
}
