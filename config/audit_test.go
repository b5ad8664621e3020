package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// Lines that are appended to a key file, or to the configuration itself, would keep the next start from reading it.
func TestTheAuditLogIsNoFileThatIsInUse(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("key", []byte("caller-key-0123456789"), 0o600))
	require.NoError(t, os.WriteFile("bifrost.db", nil, 0o600))
	require.NoError(t, os.Symlink("key", "link"))
	require.NoError(t, os.Symlink("bifrost.db", "store"))
	const ofStore, isRead = "is a file of the store: name another", "is a file that the configuration is read from: name another"
	for path, want := range map[string]string{
		"./bifrost.yaml":                        isRead,
		filepath.Join(here, "bifrost.yaml"):     isRead,
		"key":                                   isRead,
		"link":                                  isRead,
		filepath.Join(here, "bifrost.db"):       ofStore,
		filepath.Join(here, "bifrost.db.key"):   ofStore,
		"store":                                 ofStore,
		"audit.jsonl":                           "",
		filepath.Join(here, "bifrost.db.audit"): "",
	} {
		text := "audit: {file: " + path + `}
callers: [{name: jobs, key: {file: key}, orgs: [acme], integrations: ["*"]}]
integrations:
  Graph:
    route: /graph
    upstream: https://graph.example.com
    flow: client_credentials
    client_id: id
    client_secret: {env: GRAPH_SECRET}
    token_url: https://login.example.com/token
    scopes: s
`
		require.NoError(t, os.WriteFile("bifrost.yaml", []byte(text), 0o600))
		_, err := config.Loader{Env: func(string) (string, bool) { return "CANARY-SECRET", true }}.Load("bifrost.yaml")
		if want == "" {
			require.NoError(t, err, path)
			continue
		}
		require.ErrorContains(t, err, "audit.file: "+want, path)
		require.Equal(t, 1, strings.Count(err.Error(), "audit.file"), path)
	}
}
