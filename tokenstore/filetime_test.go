package tokenstore_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestATombstoneEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.OpenFile(t)
		old := storetest.Grant()
		require.NoError(t, s.Save(t.Context(), acme, old, tokenstore.Version{}))
		require.NoError(t, s.Delete(t.Context(), acme, old.Version()))

		time.Sleep(tokenstore.TombstoneLife - time.Second)
		_, err := s.Get(t.Context(), acme)
		require.ErrorIs(t, err, tokenstore.ErrDeleted)
		require.ErrorIs(t, s.Save(t.Context(), acme, old, tokenstore.Version{}), tokenstore.ErrConflict)

		time.Sleep(2 * time.Second)
		_, err = s.Get(t.Context(), acme)
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
		require.NotErrorIs(t, err, tokenstore.ErrDeleted)
		require.NoError(t, s.Put(t.Context(), "any", nil, time.Minute))
		require.NotContains(t, string(dumpBolt(t, s.DB())), "acme", "a write purges it")
	})
}

func TestAShelvedValueEndsToTheMillisecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.OpenFile(t)
		require.NoError(t, s.Put(t.Context(), "id", []byte("v"), 10*time.Minute))
		time.Sleep(10*time.Minute - time.Millisecond)
		values, err := s.Peek(t.Context(), "id")
		require.NoError(t, err)
		require.Equal(t, [][]byte{[]byte("v")}, values)
		time.Sleep(time.Millisecond)
		_, err = s.Take(t.Context(), "id")
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	})
}

func TestWritesPurgeTheShelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.OpenFile(t)
		empty := len(dumpBolt(t, s.DB()))
		for i := range 100 {
			require.NoError(t, s.Put(t.Context(), fmt.Sprint(i), []byte("v"), time.Minute))
		}
		time.Sleep(time.Hour)
		for range 2 { // each purges 64
			require.NoError(t, s.Put(t.Context(), "last", nil, time.Second))
		}
		_, err := s.Take(t.Context(), "last")
		require.NoError(t, err)
		require.Len(t, dumpBolt(t, s.DB()), empty)
	})
}

func TestALeaseEndsByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.OpenFile(t)
		lease, err := s.Acquire(t.Context(), acme, time.Minute)
		require.NoError(t, err)
		require.Equal(t, time.Now().Add(time.Minute), lease.Expires)
		time.Sleep(time.Minute - time.Nanosecond)
		_, err = s.Acquire(t.Context(), acme, time.Minute)
		require.ErrorIs(t, err, tokenstore.ErrHeld)
		time.Sleep(time.Nanosecond)
		_, err = s.Acquire(t.Context(), acme, time.Minute)
		require.NoError(t, err)
	})
}
