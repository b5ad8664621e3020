package tokenstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// Whoever counts all connections used to leave the whole file in the process's memory.
func TestAListLeavesNoneOfTheFileInMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bifrost.db")
	store, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: storetest.Keys(t)})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	const connections = 40
	for i := range connections {
		rec := &tokenstore.Record{Grant: "g", Generation: 1, Token: tokenstore.Token{Access: strings.Repeat("x", 30_000)}}
		require.NoError(t, store.Save(t.Context(), tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(fmt.Sprint("org-", i))}, rec, tokenstore.Version{}))
	}
	listed := 0
	for _, entry := range store.List(t.Context(), "") {
		require.NoError(t, entry.Err)
		listed++
	}
	require.Equal(t, connections, listed)
	require.Less(t, resident(t, path), 256)
}

// resident returns how many KiB of a mapped file the process holds.
func resident(t *testing.T, path string) (kib int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	require.NoError(t, err)
	_, of, found := strings.Cut(string(maps), path+"\n")
	require.True(t, found, "the file is not mapped")
	_, rss, _ := strings.Cut(of, "\nRss:")
	rss, _, _ = strings.Cut(rss, "kB")
	kib, err = strconv.Atoi(strings.TrimSpace(rss))
	require.NoError(t, err)
	return kib
}
