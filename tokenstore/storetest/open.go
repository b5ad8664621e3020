package storetest

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// OpenFile opens a new file store with Key and closes it with the test.
func OpenFile(t testing.TB) *tokenstore.File {
	t.Helper()
	return OpenFileAt(t, filepath.Join(t.TempDir(), "bifrost.db"))
}

// OpenFileAt opens the file store at path with Key and closes it with the test.
func OpenFileAt(t testing.TB, path string) *tokenstore.File {
	t.Helper()
	s, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: Keys(t)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// OpenRedis opens the store at url with Key and closes it with the test. Several of one url are so many replicas.
func OpenRedis(t testing.TB, url string) *tokenstore.Redis {
	t.Helper()
	return OpenRedisAs(t, tokenstore.RedisConfig{URL: url})
}

// OpenRedisAs is OpenRedis with a configuration, whose keys are set to Key if it has none. On a busy machine a server may not
// answer at once.
func OpenRedisAs(t testing.TB, cfg tokenstore.RedisConfig) *tokenstore.Redis {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = Keys(t)
	}
	s, err := tokenstore.NewRedis(t.Context(), cfg)
	for start := time.Now(); errors.Is(err, tokenstore.ErrUnavailable) && time.Since(start) < 15*time.Second; {
		s, err = tokenstore.NewRedis(t.Context(), cfg)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}
