package authflow_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// herd is how many connections expire at the same moment.
const herd = 10_000

func TestHerdOfEqualExpiriesIsSpread(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		w.connectMany(herd)
		second, _ := w.replica()
		third, _ := w.replica()
		replicas := []*authflow.Broker{w.Broker, second, third}
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(100 * time.Millisecond))
		began := time.Now()
		posts := w.posts()
		pass(49 * time.Minute)
		for _, b := range replicas {
			w.sweep(b)
		}
		pass(10 * time.Minute)

		require.Equal(t, herd, posts())
		w.oncePerToken()
		require.LessOrEqual(t, w.provider.MaxConcurrent(), len(replicas)*8)
		window := 10 * time.Minute / 4 // a quarter of the soft threshold's distance
		times := make(map[int]int)
		var first, last time.Time
		for _, post := range w.provider.Posts() {
			if first.IsZero() {
				first = post.Time
			}
			last = post.Time
			times[int(post.Time.Sub(began)/(15*time.Second))]++
		}
		for i := range int(time.Hour / (15 * time.Second)) {
			if n := times[i]; n > 0 {
				t.Logf("%6s %5d %s", time.Duration(i)*15*time.Second, n, strings.Repeat("#", n/20))
			}
		}
		t.Logf("%d POSTs, at most %d at a time, in %s of a window of %s", posts(), w.provider.MaxConcurrent(), last.Sub(first), window)
		require.GreaterOrEqual(t, last.Sub(first), window/2)
		for _, n := range times {
			require.LessOrEqual(t, n, herd/4, "in 15 s")
		}
	})
}

func TestMemoryPerConnection(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		const many = 1000
		orgs := w.connectMany(many)
		fresh, _ := w.replica()
		w.use(fresh, orgs[0])
		before := heap()
		for _, org := range orgs {
			_, err := fresh.Token(t.Context(), slot(org))
			require.NoError(t, err)
		}
		each := (heap() - before) / many
		cred := w.use(fresh, orgs[0])
		t.Logf("%d bytes per connection, with an access token of %d bytes", each, len(cred.Header())-len("Bearer "))
		require.Less(t, each, 1024+len(cred.Header()))
		runtime.KeepAlive(fresh)
	})
}

// heap returns how many bytes are in use.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
