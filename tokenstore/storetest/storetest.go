// Package storetest is the contract of a token store as a test suite, run by every implementation, and opens stores for the
// tests of other packages.
package storetest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Opened is a store under test with a way round it.
type Opened struct {
	tokenstore.Backend
	// Row returns the stored bytes of a Slot: one or several fields, which ones is the implementation's own affair. Nil: the
	// store seals nothing, and the tests of its seals are left out.
	Row func(slot tokenstore.Slot) [][]byte
	// SetRow replaces the fields of a Slot.
	SetRow func(slot tokenstore.Slot, fields [][]byte)
	// Dump returns every byte that the store keeps.
	Dump func() []byte
}

// Run tests a store against the contract. open returns a new, empty store each time and closes it with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	groups := map[string]map[string]func(*testing.T, Opened){
		"records": records,
		"deletes": deletes,
		"lists":   lists,
		"leases":  leases,
		"shelf":   shelf,
		"feed":    feed,
		"notes":   notes,
		"seal":    seals,
	}
	for name, group := range groups {
		sealing := name == "seal"
		t.Run(name, func(t *testing.T) {
			for name, test := range group {
				t.Run(name, func(t *testing.T) {
					s := open(t)
					if s.Row == nil && sealing {
						t.Skip("it seals nothing")
					}
					test(t, s)
				})
			}
		})
	}
}

// Key is the encryption key of every store that this package opens.
func Key() tokenstore.Key {
	return tokenstore.Key{ID: "test", Bytes: []byte("CANARY-store-key-of-32-bytes-256")}
}

// Keys is a ring of Key alone.
func Keys(t testing.TB) *tokenstore.Keyring {
	t.Helper()
	keys, err := tokenstore.NewKeyring(Key())
	require.NoError(t, err)
	return keys
}

// Grant returns a complete record of a new grant.
func Grant() *tokenstore.Record {
	now := time.Now().UTC().Truncate(time.Millisecond)
	return &tokenstore.Record{
		Grant:      tokenstore.GrantID(rand.Text()),
		Generation: 1,
		Write:      rand.Text(),
		Token: tokenstore.Token{
			Access: "CANARY-access-token", Refresh: "CANARY-refresh-token", Type: "Bearer", Expiry: now.Add(time.Hour),
		},
		Scopes:      []string{"offline_access", "Directory.Read.All"},
		Extra:       map[string]string{"instance_url": "https://CANARY-extra.example"},
		Account:     "CANARY-account",
		Client:      "CANARY-client",
		Connected:   now,
		ConnectedBy: "ops",
		Refreshed:   now,
		Used:        now,
		Forced:      now,
		Suspect:     true,
		Fence:       7,
		Due:         now.Add(48 * time.Minute),
		Failure:     &tokenstore.Failure{Code: "other", Text: "timeout", At: now, Attempts: 2, RetryAt: now.Add(time.Second), Mandated: true},
		Intent:      &tokenstore.Intent{Holder: "holder", Fence: 7, Began: now, Deadline: now.Add(time.Minute)},
	}
}

// slotOf returns a slot of its own for every org.
func slotOf(org string) tokenstore.Slot {
	return tokenstore.Slot{Integration: "Microsoft_Graph", Org: tokenstore.Org(org)}
}

// saved stores a new grant in the slot and returns its record.
func saved(t *testing.T, s tokenstore.Store, slot tokenstore.Slot) *tokenstore.Record {
	t.Helper()
	rec := Grant()
	require.NoError(t, s.Save(t.Context(), slot, rec, tokenstore.Version{}))
	return rec
}

// refreshed returns the record of the next generation.
func refreshed(rec *tokenstore.Record) *tokenstore.Record {
	next := *rec
	next.Generation++
	next.Write = rand.Text()
	next.Token.Access = "CANARY-access-token-" + rand.Text()
	return &next
}
