package authflow

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestConnectLink(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	for given, want := range map[time.Duration]time.Duration{0: 24 * time.Hour, ButtonLife: 10 * time.Minute, MaxLinkLife: 720 * time.Hour} {
		link, err := e.broker.ConnectLink(t.Context(), acme, "ops", given)
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(want), link.ExpiresAt, time.Minute)
		id, found := strings.CutPrefix(link.URL, e.public+"/oauth/connect/Graph?ticket=")
		require.True(t, found, link.URL)
		require.Equal(t, id, url.QueryEscape(id))
		require.Len(t, id, 43, "256 bits")
	}
}

func TestConnectLinkRefuses(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	for name, tc := range map[string]struct {
		slot tokenstore.Slot
		life time.Duration
		want error
	}{
		"an unknown integration": {tokenstore.Slot{Integration: "Nobody", Org: "acme"}, 0, ErrUnknownIntegration},
		"no org":                 {tokenstore.Slot{Integration: "Graph"}, 0, ErrBadLink},
		"an org that is none":    {tokenstore.Slot{Integration: "Graph", Org: "a/b"}, 0, ErrBadLink},
		"an org like @global":    {tokenstore.Slot{Integration: "Graph", Org: "@GLOBAL"}, 0, ErrBadLink},
		"a life over 30 days":    {acme, MaxLinkLife + 1, ErrBadLink},
		"a life below nothing":   {acme, -1, ErrBadLink},
	} {
		t.Run(name, func(t *testing.T) {
			link, err := e.broker.ConnectLink(t.Context(), tc.slot, "ops", tc.life)
			require.ErrorIs(t, err, tc.want)
			require.Zero(t, link)
		})
	}
	e.store.failing(unavailable("put ticket:"))
	_, err := e.broker.ConnectLink(t.Context(), acme, "ops", 0)
	require.ErrorIs(t, err, ErrStore)
}
