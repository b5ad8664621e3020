package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Ten thousand orgs of one upstream used to cost ten thousand copies of it.
func TestOrgsWithoutSettingsShareOneTarget(t *testing.T) {
	rt, err := newRoute(Route{
		Integration: "graph", Prefix: "/graph", OwnTargets: []tokenstore.Org{"acme"},
		Target: func(org tokenstore.Org) (Target, error) {
			return Target{BaseURL: "https://" + string(org[1:]) + ".example"}, nil
		},
	})
	require.NoError(t, err)
	targetOf := func(org tokenstore.Org) *target {
		made, err := rt.targetOf(org)
		require.NoError(t, err)
		return made
	}
	require.Equal(t, "cme.example", targetOf("acme").host)
	require.Equal(t, "global.example", targetOf(tokenstore.Global).host)
	require.Same(t, targetOf(tokenstore.Global), targetOf("globex"))
	require.Same(t, targetOf("initech"), targetOf("globex"))
}
