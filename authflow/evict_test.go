package authflow

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestOrgsThatACallerMakesUpAreBounded(t *testing.T) {
	var b Broker
	real := tokenstore.Slot{Integration: "graph", Org: "real"}
	b.conn(real).snap.Store(&snapshot{packed: tokenstore.Pack(&tokenstore.Record{})})
	reading := tokenstore.Slot{Integration: "graph", Org: "reading"}
	b.conn(reading).read = &read{}
	for i := range newcomersMax + 1000 {
		b.conn(tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(fmt.Sprint("made-up-", i))})
	}
	there := 0
	for range b.conns.all() {
		there++
	}
	require.Equal(t, newcomersMax+2, there)
	for _, slot := range []tokenstore.Slot{real, reading} {
		require.NotNil(t, b.conns.load(slot), "%s", slot)
	}
	require.Nil(t, b.conns.load(tokenstore.Slot{Integration: "graph", Org: "made-up-0"}), "the earliest leave")
}
