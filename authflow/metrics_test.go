package authflow_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every replica used to read every record four times a minute, however many there were.
func TestCountingAllConnectionsTakesLittleOfTheTime(t *testing.T) {
	for name, c := range map[string]struct {
		takes        time.Duration
		atLeast, max int32 // in an hour
	}{
		"few connections":      {time.Millisecond, 239, 240},
		"ten thousand":         {130 * time.Millisecond, 54, 56},
		"a hundred thousand":   {1300 * time.Millisecond, 11, 12},
		"a store that is slow": {30 * time.Second, 10, 12},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, rotating, func(t *testing.T, w *world) {
				w.store.listTime.Store(int64(c.takes))
				w.sweep(w.Broker)
				pass(time.Hour)
				counts := w.store.lists.Load() - 1 // the other is for consents that have waited for too long
				require.LessOrEqual(t, counts, c.max)
				require.GreaterOrEqual(t, counts, c.atLeast)
			})
		})
	}
}
