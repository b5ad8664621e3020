package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

// badEnv is the environment of the bad files. A value with CANARY may not be printed.
func badEnv(name string) (string, bool) {
	values := map[string]string{
		"EMPTY":          "",
		"CONTROL":        "CANARY\nCANARY",
		"SPACED":         "CANARY CANARY",
		"KEY":            "Q0FOQVJZLWtleS1DQU5BUlkta2V5LUNBTkFSWS1rZXk=",
		"KEY2":           "Q0FOQVJZLWtleS1DQU5BUlkta2V5LUNBTkFSWS1rZXh",
		"SHORT_KEY":      "Q0FOQVJZ",
		"GOOD_REDIS_URL": "rediss://:CANARY@redis.example.com:6379",
		"REFUSED_URL":    "redis://:CANARY@redis.example.com:6379",
		"REDIS_URL":      "http://:CANARY@redis.example.com:6379",
	}
	if v, ok := values[name]; ok {
		return v, true
	}
	return "CANARY-" + name, !strings.HasPrefix(strings.ToUpper(name), "UNSET")
}

// Each file holds one mistake, or as many as it has lines "# want: LINE: path: message". A path or text that a person may
// have put a secret in is spelled CANARY.
func TestEveryMistakeIsReportedWhereItStands(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	require.NoError(t, err)
	require.Greater(t, len(files), 150)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			cfg, err := config.Loader{Env: badEnv, CheckRedisURL: plain, CheckAddress: notLinkLocal}.Load(file)
			require.Nil(t, cfg)
			require.Equal(t, wanted(t, file), problems(t, err))
			require.NotContains(t, err.Error(), "CANARY")
			require.Equal(t, len(problems(t, err)), 1+strings.Count(err.Error(), "\n"), "one line per problem")
		})
	}
}

// plain refuses a Redis without TLS, where that is not allowed.
func plain(url string, allowInsecure bool) error {
	if allowInsecure || strings.HasPrefix(url, "rediss:") {
		return nil
	}
	return errors.New("is without TLS")
}

// notLinkLocal refuses link-local addresses, and 169.254.169.254 even where it is allowed.
func notLinkLocal(ip netip.Addr, allowed []netip.Prefix) error {
	switch {
	case ip == netip.MustParseAddr("169.254.169.254"):
		return errors.New("is never an upstream")
	case ip.IsLinkLocalUnicast() && !slices.ContainsFunc(allowed, func(n netip.Prefix) bool { return n.Contains(ip) }):
		return errors.New("is link-local")
	}
	return nil
}

// wanted returns the problems that a file says it has.
func wanted(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var want []string
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "# want: "); ok {
			want = append(want, strings.TrimSuffix(rest, "\n"))
		}
	}
	return want
}

func problems(t *testing.T, err error) []string {
	t.Helper()
	var list config.Problems
	require.ErrorAs(t, err, &list)
	var got []string
	for _, p := range list {
		s := fmt.Sprintf("%d: %s", p.Line, p.Message)
		if p.Path != "" {
			s = fmt.Sprintf("%d: %s: %s", p.Line, p.Path, p.Message)
		}
		require.True(t, strings.HasPrefix(p.String(), p.File+":"))
		got = append(got, s)
	}
	return got
}
