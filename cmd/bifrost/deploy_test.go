package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// TestEveryConfigurationThatWeShipIsGood loads what operators copy from: the files of deploy/ and the blocks of the README.
func TestEveryConfigurationThatWeShipIsGood(t *testing.T) {
	shipped := map[string]string{}
	for _, name := range []string{"bifrost.example.yaml", "compose.bifrost.yaml", "kubernetes/bifrost.yaml"} {
		data, err := os.ReadFile(filepath.Join("../../deploy", name))
		require.NoError(t, err)
		shipped["deploy/"+name] = string(data)
	}
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		shipped["README.md: "+strings.SplitN(block[1], "\n", 2)[0]] = block[1]
	}

	for name, text := range shipped {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bifrost.yaml")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			cfg, err := config.Load(file, anySecret)
			require.NoError(t, err)
			require.NotEmpty(t, cfg.Integrations)
		})
	}
}

// anySecret is an environment in which every variable is set, to something of the shape that its name asks for.
func anySecret(name string) (string, bool) {
	switch {
	case strings.HasSuffix(name, "_URL"):
		return "redis://redis.test:6379/0", true
	case strings.HasPrefix(name, "BIFROST_KEY"):
		return base64.StdEncoding.EncodeToString(make([]byte, 32)), true
	default:
		return "CANARY-" + strings.Repeat(name, 3), true
	}
}
