package authflow

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// crossed is a store before whose nth operation on a waiting consent another replica acts: it goes on when that one has ended, or
// is held up by a lease.
type crossed struct {
	tokenstore.Backend
	left  atomic.Int32 // operations until then
	other func()
	held  chan struct{} // the other replica is held up
	ended chan struct{} // the other replica has ended
}

func (s *crossed) step(id string) {
	if !strings.HasPrefix(id, "candidate:") || s.left.Add(-1) != 0 {
		return
	}
	go func() { defer close(s.ended); s.other() }()
	select {
	case <-s.ended:
	case <-s.held:
	}
}

func (s *crossed) Put(ctx context.Context, id string, value []byte, life time.Duration) error {
	s.step(id)
	return s.Backend.Put(ctx, id, value, life)
}

func (s *crossed) Take(ctx context.Context, id string) ([]byte, error) {
	s.step(id)
	return s.Backend.Take(ctx, id)
}

func (s *crossed) Peek(ctx context.Context, ids ...string) ([][]byte, error) {
	s.step(ids[0])
	return s.Backend.Peek(ctx, ids...)
}

// heldUp is the store of the other replica, which tells when it does not get a lease.
type heldUp struct {
	tokenstore.Backend
	held chan struct{}
}

func (s heldUp) Acquire(ctx context.Context, slot tokenstore.Slot, ttl time.Duration) (tokenstore.Lease, error) {
	lease, err := s.Backend.Acquire(ctx, slot, ttl)
	if errors.Is(err, tokenstore.ErrHeld) {
		select {
		case s.held <- struct{}{}:
		default: // nobody is waiting for it yet, or any more
		}
	}
	return lease, err
}

// grantOf is a grant of the user's that nobody has stored.
func (e *consentEnv) grantOf(user string) *tokenstore.Record {
	e.t.Helper()
	m := e.broker.managed("Graph")
	ep, err := m.Resolve(acme.Org)
	require.NoError(e.t, err)
	issued := e.provider.Issue(user, "Users.Read")
	token := tokenstore.Token{Access: issued.Access, Refresh: issued.Refresh, Type: "Bearer", Expiry: issued.AccessExpires}
	return e.broker.newGrant(m.Integration, ep, reply{token: token, account: user, received: time.Now()}, "ops")
}

// save makes a new grant of alice's the connection's.
func (e *consentEnv) save(slot tokenstore.Slot) *tokenstore.Record {
	e.t.Helper()
	rec := e.grantOf("alice")
	_, err := e.broker.saveGrant(e.t.Context(), slot, rec, nil)
	require.NoError(e.t, err)
	return rec
}

// Of what waited, that which came last must go on waiting, wherever in the work on the one before it arrives. A put-back overwrote
// it, and a consent that made another void, or an expiry, took it away.
func TestAWaitingConsentSurvivesTheEndOfTheOneBefore(t *testing.T) {
	for storeName, stores := range map[string]func(*testing.T) [2]tokenstore.Backend{"Redis": twoRedis, "file": oneFile} {
		for name, end := range map[string]func(e *consentEnv, slot tokenstore.Slot) (act func(), meanwhile func() error){
			"a consent": func(e *consentEnv, slot tokenstore.Slot) (func(), func() error) {
				e.save(slot)
				return e.clears(slot), nil
			},
			"a consent, and another after it": func(e *consentEnv, slot tokenstore.Slot) (func(), func() error) {
				e.save(slot)
				next := e.grantOf("alice")
				return e.clears(slot), func() error { _, err := e.broker.saveGrant(e.t.Context(), slot, next, nil); return err }
			},
			"a look, while it is for the grant that there is": func(e *consentEnv, slot tokenstore.Slot) (func(), func() error) {
				return e.clears(slot), nil
			},
			"an expiry": func(e *consentEnv, slot tokenstore.Slot) (func(), func() error) {
				e.expire(slot)
				return e.clears(slot), nil
			},
			"a confirmation that was not stored": func(e *consentEnv, slot tokenstore.Slot) (func(), func() error) {
				return func() {
					_, taken, err := e.broker.decide(e.t.Context(), slot, "")
					require.NoError(e.t, err)
					if err := e.broker.keep(e.t.Context(), slot, taken); err != nil {
						require.ErrorIs(e.t, err, tokenstore.ErrConflict)
						e.broker.drop(e.broker.managed("Graph"), slot, taken, nil)
					}
				}, nil
			},
		} {
			t.Run(storeName+"/"+name, func(t *testing.T) {
				both, held := stores(t), make(chan struct{})
				store := &crossed{Backend: both[0], held: held}
				e := accounts(t, new("alice"), consentSetup{store: &faultyStore{Backend: store}})
				other := e.newBroker(heldUp{both[1], held})
				n := int32(1)
				for e.cross(store, other, n, end) {
					n++
				}
				require.Greater(t, n, int32(1), "nothing was crossed")
			})
		}
	}
}

// clears is what a consent, a disconnect and a look do with what waits.
func (e *consentEnv) clears(slot tokenstore.Slot) func() {
	return func() { e.broker.clearCandidate(e.t.Context(), e.broker.managed("Graph"), slot) }
}

// expire has the time of what waits for the slot be over.
func (e *consentEnv) expire(slot tokenstore.Slot) {
	e.t.Helper()
	waiting, err := peek[candidate](e.t.Context(), e.store, candidateID(slot))
	require.NoError(e.t, err)
	waiting.Expires = time.Now().Add(-time.Second)
	require.NoError(e.t, shelve(e.t.Context(), e.store, candidateID(slot), waiting, time.Hour))
}

// cross has mallory's consent wait and end, and eve's arrive at the other replica before the nth operation of that. It returns
// false if there are not so many.
func (e *consentEnv) cross(store *crossed, other *Broker, n int32, end func(*consentEnv, tokenstore.Slot) (act func(), meanwhile func() error)) bool {
	e.t.Helper()
	ctx, slot, m := e.t.Context(), tokenstore.Slot{Integration: "Graph", Org: tokenstore.Org(fmt.Sprint("org-", n))}, other.managed("Graph")
	mallory, eve := e.grantOf("mallory"), e.grantOf("eve")
	require.NoError(e.t, e.broker.await(ctx, m, slot, mallory, e.save(slot).Grant, newSecret()))
	act, meanwhile := end(e, slot)
	store.ended = make(chan struct{})
	store.other = func() {
		if meanwhile != nil && meanwhile() != nil {
			return // nothing waits then
		}
		if rec, err := other.readBack(ctx, slot); err == nil {
			_ = other.await(ctx, m, slot, eve, rec.Grant, newSecret()) // or nothing waits
		}
	}
	store.left.Store(n)
	act()
	if store.left.Load() > 0 {
		return false
	}
	<-store.ended
	require.NoError(e.t, e.broker.Wait(ctx))
	require.NoError(e.t, other.Wait(ctx))
	con, err := e.broker.Connection(ctx, slot)
	require.NoError(e.t, err)
	require.NotNil(e.t, con.Awaiting, "operation %d", n)
	require.Equal(e.t, candidate{Grant: eve.Grant}.id(), con.Awaiting.ID, "operation %d", n)
	require.True(e.t, e.alive(eve))
	require.False(e.t, e.alive(mallory), "nobody will confirm it any more")
	return true
}

func (e *consentEnv) alive(rec *tokenstore.Record) bool {
	e.t.Helper()
	_, alive := e.userOf(rec)
	return alive
}

// What was put back after a confirmation that failed took the place of a consent that had arrived meanwhile.
func TestAConfirmationDuringAnOutageLeavesANewerConsentWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, store, p := bubble(t, authflowtest.OneTime)
		before, err := store.Get(t.Context(), acme)
		require.NoError(t, err)
		store.away.Store(true)
		confirmed := make(chan error, 1)
		go func() { // ends with the 10 s for storing
			_, err := b.Confirm(t.Context(), acme, "", "ops")
			confirmed <- err
		}()
		time.Sleep(5 * time.Second)
		eve := *before
		eve.Grant, eve.Account = "eve's", "eve"
		require.NoError(t, b.await(t.Context(), b.managed("Graph"), acme, &eve, before.Grant, newSecret()))
		require.ErrorIs(t, <-confirmed, ErrStore)
		store.away.Store(false)
		con, err := b.Connection(t.Context(), acme)
		require.NoError(t, err)
		require.NotNil(t, con.Awaiting)
		require.Equal(t, candidate{Grant: eve.Grant}.id(), con.Awaiting.ID)
		require.NoError(t, b.Wait(t.Context()))
		require.Empty(t, p.Revocations(), "mallory's may have been stored")
	})
}
