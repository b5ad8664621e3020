package authflow

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// A clock that is put back by an hour must not have memory believed, or the store left alone, for an hour.
func TestClockThatIsPutBack(t *testing.T) {
	now := time.Now()
	var h health
	h.note(tokenstore.ErrUnavailable, now)
	require.True(t, h.down(now))
	require.False(t, h.down(time.Now().Add(storePause)))
	require.False(t, h.down(now.Add(-time.Hour)))

	var c conn
	c.checked.Store(now.UnixNano())
	require.True(t, c.believed(now))
	require.False(t, c.believed(now.Add(maxAge)))
	require.False(t, c.believed(now.Add(-time.Hour)))
}

func TestMandatedPauseIsNotShortened(t *testing.T) {
	var b breakers
	now := time.Now()
	b.note("url", true, 2*time.Minute, now)
	for range 2 * breakAfter { // of POSTs that were on their way
		b.note("url", true, 0, now)
	}
	require.Equal(t, 2*time.Minute, b.closedFor("url", now))
}
