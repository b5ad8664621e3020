package authflow_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// manyOrgs have one-time tokens that live for two seconds: about a refresh a second each.
const manyOrgs = 40

// newReplicas is three replicas that sweep, on the Redis at url, with every org connected.
func newReplicas(t *testing.T, url string) *cluster {
	t.Helper()
	c := &cluster{provider: authflowtest.New(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: 2 * time.Second})}
	for range 3 {
		b := c.broker(t, url)
		c.replicas = append(c.replicas, b)
		sweeping(t, b)
	}
	for _, org := range orgNames(manyOrgs) {
		c.adopt(t, slot(org))
	}
	return c
}

// A failover may have lost the Intent of a POST under way with its lease, so that for the time of a POST and a grace nothing is
// refreshed on the new primary: tokens of two seconds run out meanwhile. Then all is as before.
func TestTokensUnderLoadOutliveASentinelFailover(t *testing.T) {
	t.Parallel()
	servers := storetest.StartSentinel(t)
	c := newReplicas(t, servers.URL)
	l := c.startCrowd(t, orgNames(manyOrgs))
	l.settles(10 * time.Second)

	servers.Primary.Kill()
	require.Eventually(t, func() bool { return servers.Master(t) == servers.Replica.Addr }, 15*time.Second, 10*time.Millisecond)
	elected := time.Now()
	l.settles(20 * time.Second)
	l.verify(elected, heldBack+3*time.Second)
}

// A hash slot that moves gives no new lease until it has moved, and then it is on a server that is not the one it was: refreshes
// there wait as after a failover.
func TestTokensUnderLoadOutliveMovingClusterSlots(t *testing.T) {
	t.Parallel()
	nodes := storetest.StartCluster(t)
	c := newReplicas(t, nodes.URL)
	l := c.startCrowd(t, orgNames(manyOrgs))
	l.settles(10 * time.Second)

	rows := nodes.Rows(t)
	require.Len(t, rows, manyOrgs)
	for _, row := range rows[:8] {
		nodes.MoveShard(t, row)
	}
	finish := nodes.BeginMove(t, rows[8]) // and one that takes its time: as long as a token lives
	over := time.Now().Add(2 * time.Second)
	require.Eventually(t, func() bool { return time.Now().After(over) }, 10*time.Second, 10*time.Millisecond)
	finish()
	moved := time.Now()
	l.settles(20 * time.Second)
	l.verify(moved, heldBack+3*time.Second)
}
