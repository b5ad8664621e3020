package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// secrets answers for every environment variable with a value that must never be printed.
func secrets(name string) (string, bool) {
	if name == "BIFROST_KEY" {
		return "Q0FOQVJZLWtleS1DQU5BUlkta2V5LUNBTkFSWS1rZXk=", true
	}
	return "CANARY-" + name, true
}

func TestTheExampleLoads(t *testing.T) {
	cfg, err := config.Load("../deploy/bifrost.example.yaml", secrets)
	require.NoError(t, err)
	require.Len(t, cfg.Integrations, 2)
}
