package authflow

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func slotNamed(i int) tokenstore.Slot {
	return tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(fmt.Sprint("org-", i))}
}

func TestAConnectionIsFoundOnceItIsThere(t *testing.T) {
	var table connTable
	require.Nil(t, table.load(slotNamed(0)))
	var made []*conn
	for i := range 1000 {
		c, isNew := table.loadOrNew(slotNamed(i))
		require.True(t, isNew)
		require.Equal(t, slotNamed(i), c.slot)
		made = append(made, c)
	}
	for range 3 { // before it is read and after it
		for i, c := range made {
			again, isNew := table.loadOrNew(slotNamed(i))
			require.False(t, isNew)
			require.Same(t, c, again)
			require.Same(t, c, table.load(slotNamed(i)))
		}
	}
	require.ElementsMatch(t, made, slices.Collect(table.all()))
}

// On the path of a warm request: whoever was asked for often enough is found without the lock.
func TestAConnectionThatIsUsedIsFoundWithoutTheLock(t *testing.T) {
	var table connTable
	var slots []tokenstore.Slot
	for i := range 100 {
		slots = append(slots, slotNamed(i))
		table.loadOrNew(slots[i])
	}
	for i := range 101 {
		table.load(slots[i%100])
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for i := range 100 {
			if table.lookUp(slots[i]) == nil {
				t.Fatal("it is looked for under the lock")
			}
		}
	}))
}

func TestAConnectionThatHasLeftIsNotFound(t *testing.T) {
	for name, publish := range map[string]func(*connTable){
		"as a newcomer":     func(*connTable) {},
		"when it was read":  (*connTable).compact,
		"when others came":  func(table *connTable) { table.compact(); table.loadOrNew(slotNamed(-1)) },
		"and others follow": func(table *connTable) { table.loadOrNew(slotNamed(-1)); table.compact() },
	} {
		t.Run(name, func(t *testing.T) {
			var table connTable
			c, _ := table.loadOrNew(slotNamed(1))
			table.loadOrNew(slotNamed(2))
			publish(&table)
			table.remove(c)
			table.remove(c) // by another, who had found it too
			require.Nil(t, table.load(slotNamed(1)))
			require.NotContains(t, slices.Collect(table.all()), c)
			require.NotNil(t, table.load(slotNamed(2)))
			next, isNew := table.loadOrNew(slotNamed(1))
			require.True(t, isNew)
			require.NotSame(t, c, next)
			table.compact()
			require.Same(t, next, table.load(slotNamed(1)))
			table.remove(c) // who has left already
			require.Same(t, next, table.load(slotNamed(1)))
		})
	}
}

func TestWhoHasLeftIsForgotten(t *testing.T) {
	var table connTable
	for i := range 100 {
		table.loadOrNew(slotNamed(i))
	}
	for c := range table.all() {
		table.remove(c)
	}
	table.compact()
	require.Empty(t, *table.read.Load())
}

func TestAConnectionIsMadeOnceWhoeverAsks(t *testing.T) {
	var table connTable
	const orgs = 500
	firsts := make([][]*conn, 8)
	var wg sync.WaitGroup
	for g := range firsts {
		firsts[g] = make([]*conn, orgs)
		wg.Go(func() {
			for i := range orgs {
				firsts[g][i], _ = table.loadOrNew(slotNamed(i))
				if i%50 == g {
					table.compact()
				}
			}
		})
	}
	wg.Wait()
	for _, first := range firsts {
		require.Equal(t, firsts[0], first)
	}
}

func BenchmarkConnTable(b *testing.B) {
	var table connTable
	slots := make([]tokenstore.Slot, 10_000)
	for i := range slots {
		slots[i] = slotNamed(i)
		table.loadOrNew(slots[i])
	}
	table.compact()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if table.load(slots[i*7919%len(slots)]) == nil {
			b.Fatal("it is not there")
		}
	}
}
