package authflow_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// blackHole accepts every request and never answers.
type blackHole struct {
	mu            sync.Mutex // guards what follows
	running, most int
	all           int
	end           http.RoundTripper // answers, once it is set
}

// RoundTrip implements [http.RoundTripper].
func (h *blackHole) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	end := h.end
	h.mu.Unlock()
	if end != nil {
		return end.RoundTrip(r)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return nil, err
	}
	h.count(1)
	defer h.count(-1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func (h *blackHole) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running += n
	h.most = max(h.most, h.running)
	h.all += max(n, 0)
}

// answer has the provider answer from now on.
func (h *blackHole) answer(there http.RoundTripper) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end = there
}

func (h *blackHole) seen() (all, most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all, h.most
}

// besideDead adds an integration "dead", of n orgs that have just connected, whose provider has swallowed the world. Each org
// has a token URL of its own.
func (w *world) besideDead(n int) (hole *blackHole, slots []tokenstore.Slot) {
	w.Helper()
	hole = new(blackHole)
	w.elsewhere = map[string]http.RoundTripper{"dead.test": hole}
	dead := w.integration
	dead.Name = "dead"
	dead.Resolve = func(org tokenstore.Org) (authflow.Endpoints, error) {
		return authflow.Endpoints{TokenURL: "https://dead.test/" + string(org) + "/token"}, nil
	}
	require.NoError(w, w.SetIntegrations([]*authflow.Integration{&w.integration, &dead}))
	for i := range n {
		slots = append(slots, tokenstore.Slot{Integration: "dead", Org: tokenstore.Org(fmt.Sprint("org", i))})
		require.NoError(w, w.Consented(w.Context(), slots[i], "CANARY-access", "CANARY-refresh", time.Now().Add(time.Hour), nil))
	}
	return hole, slots
}

// connectMany connects so many orgs and returns them.
func (w *world) connectMany(n int) (orgs []tokenstore.Org) {
	w.Helper()
	for i := range n {
		orgs = append(orgs, tokenstore.Org(fmt.Sprint("org", i)))
		w.connect(orgs[i])
	}
	return orgs
}

// The sweep used to give its places to whoever came first: a provider that never answers, with a token URL per tenant, took them
// all, for as long as its POSTs lasted.
func TestDeadProviderDoesNotDelayTheSweepOfOthers(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		orgs := w.connectMany(50)
		w.besideDead(2000)
		due := make(map[tokenstore.Org]time.Time)
		for _, org := range orgs {
			due[org] = w.status(org).NextRefresh
		}
		w.sweep(w.Broker)
		refreshed := make(map[tokenstore.Org]time.Duration)
		for range 60 * 60 {
			pass(time.Second)
			for org := range maps.Keys(due) {
				if now := time.Now(); due[org].After(now) {
					continue
				}
				if c := w.status(org); c.LastRefresh.After(due[org]) {
					refreshed[org] = c.LastRefresh.Sub(due[org])
					delete(due, org)
				}
			}
		}
		require.Len(t, refreshed, len(orgs))
		for org, late := range refreshed {
			require.Less(t, late, 2500*time.Millisecond, "%s", org)
		}
	})
}

func TestRefreshesBehindRequestsWaitForRoomAtTheirEndpoint(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		orgs := w.connectMany(100)
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(time.Second))
		var all sync.WaitGroup
		began := time.Now()
		for _, org := range orgs {
			all.Go(func() { w.use(w.Broker, org) })
		}
		all.Wait()
		require.Equal(t, 16, w.provider.MaxConcurrent())
		require.InDelta(t, 100/16.+1, time.Since(began).Seconds(), 1)
		w.oncePerToken()
	})
}

func TestOperatorDoesNotWaitBehindRequests(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		orgs := w.connectMany(1000)
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(time.Second))
		var all sync.WaitGroup
		for _, org := range orgs[:999] {
			all.Go(func() { _, _ = w.Token(t.Context(), slot(org)) })
		}
		synctest.Wait()
		for _, org := range []tokenstore.Org{orgs[999], orgs[500]} { // one that nobody refreshes yet, and one that waits
			began := time.Now()
			_, err := w.Refresh(t.Context(), slot(org))
			require.NoError(t, err)
			require.Less(t, time.Since(began), 2*time.Second)
		}
		all.Wait()
		require.LessOrEqual(t, w.provider.MaxConcurrent(), 16+4)
		require.NoError(t, w.Wait(t.Context()))
		w.oncePerToken()
	})
}
