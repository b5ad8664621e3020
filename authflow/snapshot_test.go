package authflow

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Nanoseconds since 1970 do not reach all years that a provider's lifetime, or a damaged clock, may name: none may turn past into future.
func TestInstantsKeepTheirOrderInEveryYear(t *testing.T) {
	now := time.Now()
	for _, year := range []int{1, 1000, 1677, 1678, 1969, 2026} {
		at := instantOf(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		require.False(t, at.after(now), "%d", year)
		require.True(t, at.before(now), "%d", year)
	}
	for _, year := range []int{2100, 2261, 2262, 2263, 9999} {
		at := instantOf(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		require.True(t, at.after(now), "%d", year)
		require.False(t, at.before(now), "%d", year)
	}
	require.Equal(t, now.UTC().Round(0), instantOf(now).time())
}
