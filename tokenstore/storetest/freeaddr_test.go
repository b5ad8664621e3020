package storetest_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// Two programs once got one port: it was given out again before the first of them listened.
func TestAFreeAddressIsGivenOutOnce(t *testing.T) {
	given := map[string]bool{}
	for range 500 {
		given[storetest.FreeAddr(t)] = true
	}
	for range 500 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer func() { require.NoError(t, l.Close()) }()
		given[l.Addr().String()] = true
	}
	require.Len(t, given, 1000)

	addr := storetest.FreeAddr(t)
	for range 2 {
		l, err := net.Listen("tcp", addr)
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
	_, err := net.Dial("tcp", addr)
	require.Error(t, err)
}
