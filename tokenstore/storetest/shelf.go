package storetest

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var shelf = map[string]func(*testing.T, Opened){
	"a value is taken once": func(t *testing.T, s Opened) {
		require.NoError(t, s.Put(t.Context(), "CANARY-id", []byte("CANARY-value"), time.Minute))
		value, err := s.Take(t.Context(), "CANARY-id")
		require.NoError(t, err)
		require.Equal(t, "CANARY-value", string(value))
		_, err = s.Take(t.Context(), "CANARY-id")
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	},

	"of concurrent takers exactly one gets it": func(t *testing.T, s Opened) {
		require.NoError(t, s.Put(t.Context(), "id", []byte("v"), time.Minute))
		var got atomic.Int32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				switch _, err := s.Take(t.Context(), "id"); {
				case err == nil:
					got.Add(1)
				case !errors.Is(err, tokenstore.ErrNotFound):
					t.Errorf("take: %v", err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 1, got.Load())
	},

	"a peek leaves the values and says which are there": func(t *testing.T, s Opened) {
		require.NoError(t, s.Put(t.Context(), "a", []byte("1"), time.Minute))
		require.NoError(t, s.Put(t.Context(), "c", []byte{}, time.Minute))
		for range 2 {
			values, err := s.Peek(t.Context(), "a", "b", "c")
			require.NoError(t, err)
			require.Equal(t, [][]byte{[]byte("1"), nil, {}}, values)
		}
		values, err := s.Peek(t.Context())
		require.NoError(t, err)
		require.Empty(t, values)
	},

	"a put replaces value and life": func(t *testing.T, s Opened) {
		require.NoError(t, s.Put(t.Context(), "id", []byte("old"), 40*time.Millisecond))
		end := time.Now().Add(40 * time.Millisecond)
		require.NoError(t, s.Put(t.Context(), "id", []byte("new"), time.Minute))
		require.Eventually(t, func() bool { return time.Now().After(end.Add(10 * time.Millisecond)) }, 5*time.Second, time.Millisecond)
		require.NoError(t, s.Put(t.Context(), "other", nil, time.Minute)) // a write purges
		value, err := s.Take(t.Context(), "id")
		require.NoError(t, err)
		require.Equal(t, "new", string(value))
	},

	"a value is gone when its life is over": func(t *testing.T, s Opened) {
		require.NoError(t, s.Put(t.Context(), "id", []byte("v"), 50*time.Millisecond))
		require.Eventually(t, func() bool {
			values, err := s.Peek(t.Context(), "id")
			return err == nil && values[0] == nil
		}, 5*time.Second, 5*time.Millisecond)
		_, err := s.Take(t.Context(), "id")
		require.ErrorIs(t, err, tokenstore.ErrNotFound)
	},

	"expired values leave the store": func(t *testing.T, s Opened) {
		before := len(s.Dump())
		for range 20 {
			require.NoError(t, s.Put(t.Context(), "id"+time.Now().String(), bytes.Repeat([]byte("v"), 1000), 20*time.Millisecond))
		}
		require.Eventually(t, func() bool {
			require.NoError(t, s.Put(t.Context(), "id", nil, time.Minute))
			return len(s.Dump()) < before+1000
		}, 5*time.Second, 10*time.Millisecond)
	},

	"a value without a life is refused": func(t *testing.T, s Opened) {
		require.Error(t, s.Put(t.Context(), "id", []byte("v"), 0))
	},

	"a value moved under another id is not given out": func(t *testing.T, s Opened) {
		require.NoError(t, s.Put(t.Context(), "id", []byte("v"), time.Minute))
		values, err := s.Peek(t.Context(), "id ", "ID", "")
		require.NoError(t, err)
		require.Equal(t, [][]byte{nil, nil, nil}, values)
	},
}
