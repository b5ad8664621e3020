package authflow_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// Replicas used to take what is due in the same order: each asked for every lease, and all but one in vain.
func TestReplicasShareTheSweep(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		const connections = 300
		w.connectMany(connections)
		second, _ := w.replica()
		third, _ := w.replica()
		pass(55 * time.Minute) // all are due
		w.provider.MisbehaveAlways(authflowtest.SlowAfter(100 * time.Millisecond))
		posts, acquires := w.posts(), w.store.acquires.Load()
		w.sweep(w.Broker)
		w.sweep(second)
		w.sweep(third)
		pass(10 * time.Second)
		require.Equal(t, connections, posts())
		require.Less(t, w.store.acquires.Load()-acquires, int32(connections*3/2), "most leases are asked for once")
		w.oncePerToken()
	})
}
