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
	require.True(t, c.believed(now, maxAge))
	require.False(t, c.believed(now.Add(maxAge), maxAge))
	require.False(t, c.believed(now.Add(-time.Hour), maxAge))
}

func TestMandatedPauseIsNotShortened(t *testing.T) {
	var b breakers
	now := time.Now()
	b.note("url", finding{failed: true, mandated: 2 * time.Minute, began: now}, now)
	for range 2 * breakAfter { // of POSTs that were on their way
		b.note("url", finding{failed: true, began: now}, now)
	}
	require.Equal(t, 2*time.Minute, b.closedFor("url", now))
}

// A POST that hung for longer than the provider did used to hold the endpoint back for as long as if it had just failed.
func TestFailureThatComesLateTellsOfWhenItBegan(t *testing.T) {
	var b breakers
	began := time.Now()
	ended := began.Add(30 * time.Second)
	for range 2 * breakAfter {
		b.note("https://idp.test/token", finding{failed: true, silent: true, began: began}, ended)
	}
	require.Zero(t, b.admit("https://idp.test/token", ended))
	require.GreaterOrEqual(t, b.closedFor("https://idp.test/other", ended), probeMin)
}

func TestBreakersForgetWhatNobodyAsks(t *testing.T) {
	var b breakers
	now := time.Now()
	b.note("https://idp.test/token", finding{failed: true, silent: true, began: now}, now)
	b.reject("client", now.Add(clientProbe))
	b.forget(now.Add(breakerIdle))
	require.Len(t, b.endpoints, 1)
	require.Len(t, b.clients, 1)
	b.forget(now.Add(breakerIdle + rejectionLife))
	require.Empty(t, b.endpoints)
	require.Empty(t, b.hosts)
	b.forget(now.Add(clientProbe + rejectionLife + time.Second))
	require.Empty(t, b.clients)
}
