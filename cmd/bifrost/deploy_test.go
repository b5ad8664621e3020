package main

import (
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(string(readme)) // the others are parts of one: see readme_test.go
	require.NotNil(t, block)
	shipped["README.md"] = block[1]

	for name, text := range shipped {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "bifrost.yaml")
			require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
			cfg, err := load(file, anySecret)
			require.NoError(t, err)
			require.NotEmpty(t, cfg.Integrations)
		})
	}
}

// anySecret is an environment in which every variable is set, to something of the shape that its name asks for.
func anySecret(name string) (string, bool) {
	switch {
	case strings.HasSuffix(name, "_URL"):
		return "rediss://:CANARY@redis.test:6379/0", true
	case strings.HasPrefix(name, "BIFROST_KEY"):
		return base64.StdEncoding.EncodeToString(make([]byte, 32)), true
	default:
		return "CANARY-" + strings.Repeat(name, 3), true
	}
}

// TestAlertsAndReadmeNameMetricsThatExist keeps a renamed metric from silencing an alert: an expression over a metric that
// nobody publishes is no error to Prometheus.
func TestAlertsAndReadmeNameMetricsThatExist(t *testing.T) {
	published := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, name := range regexp.MustCompile(`"(bifrost_\w+)"`).FindAllSubmatch(source, -1) {
			published[string(name[1])] = true
		}
		return err
	})
	require.NoError(t, err)

	for _, file := range []string{"../../deploy/alerts.yaml", "../../README.md"} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		names := regexp.MustCompile(`\bbifrost_\w+`).FindAllString(string(text), -1)
		require.NotEmpty(t, names)
		for _, name := range names {
			require.True(t, published[name] || published[strings.TrimSuffix(name, "_count")], "%s names %s", file, name)
		}
	}
}
