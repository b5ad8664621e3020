package e2e_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// seeder writes connections into a site's Redis beside its replicas, without a POST and without their memory.
type seeder struct {
	site   *site
	store  *tokenstore.Redis
	client string // the fingerprint of the integration graph's client
}

// newSeeder has the replica adopt one org, to learn what its records look like.
func newSeeder(t *testing.T, s *site, r *replica) *seeder {
	t.Helper()
	key, err := base64.StdEncoding.DecodeString(s.env["KEY"])
	require.NoError(t, err)
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "k1", Bytes: key})
	require.NoError(t, err)
	store, err := tokenstore.NewRedis(t.Context(), tokenstore.RedisConfig{URL: s.env["REDIS"], Keys: keys})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	r.adopt("pattern")
	sd := &seeder{site: s, store: store}
	sd.client = sd.record(t, "pattern").Client
	return sd
}

func (s *seeder) record(t *testing.T, org string) *tokenstore.Record {
	t.Helper()
	rec, err := s.store.Get(t.Context(), slotOf(org))
	require.NoError(t, err, org)
	return rec
}

// seed writes the orgs' connections. Their tokens live as long as the provider issues them at present, and count as received
// so long before they expire as life says.
func (s *seeder) seed(t *testing.T, orgs []string, life time.Duration) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	for _, org := range orgs {
		group.Go(func() error {
			token := s.site.idp.Issue(org, "read")
			received := token.AccessExpires.Add(-life)
			rec := &tokenstore.Record{
				Grant: tokenstore.GrantID(rand.Text()), Generation: 1, Write: rand.Text(), Client: s.client, Scopes: token.Scopes,
				Token:     tokenstore.Token{Access: token.Access, Refresh: token.Refresh, Type: "Bearer", Expiry: token.AccessExpires},
				Connected: received, Refreshed: received, Used: time.Now(),
				Due: softOf(slotOf(org), life, token.AccessExpires),
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			return s.store.Save(ctx, slotOf(org), rec, tokenstore.Version{})
		})
	}
	require.NoError(t, group.Wait())
}

// softOf is when a token is due, as a Broker reckons it: else the sweep would look at each connection once in vain.
func softOf(slot tokenstore.Slot, life time.Duration, expiry time.Time) time.Time {
	h := fnv.New64a()
	_, _ = h.Write([]byte(slot.Integration + "\x00" + string(slot.Org))) // never fails
	spread := float64(h.Sum64()&0xffffff) / (1 << 24)
	early := min(max(life/5, 30*time.Second), 10*time.Minute, life/2)
	return expiry.Add(-early + time.Duration(float64(early)/4*spread))
}

func slotOf(org string) tokenstore.Slot {
	return tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(org)}
}

// orgsNamed returns that many names.
func orgsNamed(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return names
}
