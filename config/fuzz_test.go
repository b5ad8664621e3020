package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// Whatever stands in a file, Load either returns a configuration whose URLs are URLs, or problems that each have a place, fit
// on one line and print no secret.
func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*/*.yaml")
	require.NoError(f, err)
	for _, file := range append(seeds, "testdata/full.yaml", "testdata/minimal.yaml", "../deploy/bifrost.example.yaml") {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(strings.ReplaceAll(string(text), "CANARY", "secret"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "CANARY") || strings.Contains(text, "/dev/") {
			t.Skip("a canary of its own, or a file that never ends")
		}
		cfg, err := config.Load(write(t, text), badEnv)
		if err == nil {
			for _, in := range cfg.Integrations {
				parse(t, in.Issuer)
				if r, err := in.Resolve("@global"); err == nil {
					parse(t, r.Upstream)
					parse(t, r.TokenURL)
					parse(t, r.AuthorizationURL)
				}
			}
			return
		}
		var list config.Problems
		require.ErrorAs(t, err, &list)
		require.NotEmpty(t, list)
		require.NotContains(t, err.Error(), "CANARY")
		for _, p := range list {
			require.Positive(t, p.Line)
			require.NotRegexp(t, `[\x00-\x1f\x7f]`, p.Path+p.Message)
		}
	})
}
