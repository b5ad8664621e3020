package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// rest completes a configuration that begins with its section auth.
const rest = `
integrations:
  Graph:
    route: /graph
    upstream: https://graph.example.com
    client_id: id
    client_secret: {env: GRAPH_SECRET}
    authorization_url: https://login.example.com/authorize
    token_url: https://login.example.com/token
`

func TestOperatorsMayDoEverythingUnlessTheFileSaysLess(t *testing.T) {
	cfg, err := config.Load(write(t, `auth:
  operators:
    - {name: all, token: {env: A}}
    - {name: every, token: {env: B}, role: operator, integrations: ["*"]}
    - {name: viewer, token: {env: C}, role: viewer}
    - {name: some, token: {env: D}, integrations: [Graph]}
`+rest), badEnv)
	require.NoError(t, err)
	require.Equal(t, []config.Operator{
		{Name: "all", Token: "CANARY-A"},
		{Name: "every", Token: "CANARY-B"},
		{Name: "viewer", Token: "CANARY-C", Rights: config.Rights{Viewer: true}},
		{Name: "some", Token: "CANARY-D", Rights: config.Rights{Integrations: []string{"Graph"}}},
	}, cfg.Auth.Operators)
}
