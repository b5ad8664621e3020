package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheTourComesTrue runs the real bifrost, the provider and the API, and every step of the story.
func TestTheTourComesTrue(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), []string{"-tour", "-port", "0"}, &out)
	require.NoError(t, err, out.String())
	for _, told := range []string{
		"424, X-Bifrost-Error: not_connected", "X-Bifrost-Connection: org: ada@acme.example", "X-Bifrost-Connection: global: ada@platform.example",
		"424, X-Bifrost-Error: needs_reconnect", "last error: invalid_grant", "Every step was checked.",
	} {
		require.Contains(t, out.String(), told)
	}
	require.NotContains(t, out.String(), "CANARY")
}
