package authflow_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
)

func TestCredentialsAreOfOneGrantUntilAReconnect(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.connect("@global")
		fallen := w.use(w.Broker, "@global")
		w.connect("acme")
		first := w.use(w.Broker, "acme")
		require.True(t, first.SameGrant(first))
		require.False(t, first.SameGrant(fallen), "another connection")
		second, _ := w.replica()
		refreshed, err := second.Replace(t.Context(), first)
		require.NoError(t, err)
		require.NotEqual(t, first.Header(), refreshed.Header())
		require.True(t, first.SameGrant(refreshed), "a refresh is no new consent")
		w.connect("acme")
		require.False(t, first.SameGrant(w.use(w.Broker, "acme")), "a reconnect is")
	})
}

// What holds a tunnel open asks every second, and must know within 5 s.
func TestWhoAsksEverySecondSoonKnowsOfAnEndWithoutTheFeed(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *world){
		"a disconnect": func(t *testing.T, w *world) { require.NoError(t, w.Disconnect(t.Context(), slot("acme"), "tester")) },
		"a reconnect":  func(_ *testing.T, w *world) { w.connect("acme") },
	} {
		for _, late := range []time.Duration{0, 300 * time.Millisecond, 999 * time.Millisecond, 1500 * time.Millisecond, 2600 * time.Millisecond} {
			t.Run(name, func(t *testing.T) {
				inWorld(t, rotating, func(t *testing.T, w *world) {
					w.connect("acme")
					second, _ := w.replica() // it does not follow the Feed
					opened := w.use(second, "acme")
					pass(late)
					end(t, w)
					began := time.Now()
					for {
						pass(time.Second)
						now, err := second.Token(t.Context(), slot("acme"))
						if err != nil {
							require.ErrorIs(t, err, authflow.ErrNotConnected)
							break
						}
						if !opened.SameGrant(now) {
							break
						}
						require.Less(t, time.Since(began), 5*time.Second)
					}
					require.Less(t, time.Since(began), 5*time.Second)
				})
			})
		}
	}
}
