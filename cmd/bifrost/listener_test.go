package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func TestHeadersOfMoreThan32KiBAreRefused(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.start(t)
	s.connect(t, "acme")
	for address, key := range map[string]string{
		"http://" + s.proxy + "/graph/me":           callerKey,
		"http://" + s.auth + "/api/v1/integrations": operatorToken,
		"http://" + s.ops + "/healthz":              "",
	} {
		for size, want := range map[int]int{31 << 10: http.StatusOK, 40 << 10: http.StatusRequestHeaderFieldsTooLarge} {
			req, err := http.NewRequest(http.MethodGet, address, nil)
			require.NoError(t, err)
			req.Header.Set("Authorization", "Bearer "+key)
			req.Header.Set("X-Org-ID", "acme")
			req.Header.Set("X-Large", strings.Repeat("a", size))
			status, body := do(t, req)
			require.Equal(t, want, status, "%s: %s", address, body)
		}
	}
}
