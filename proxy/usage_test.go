package proxy

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// limitsOf makes limits ready.
func limitsOf(t testing.TB, cfg Limits) *limits {
	t.Helper()
	l, err := newLimits(cfg)
	require.NoError(t, err)
	return l
}

// integrationUsage is what is used of an integration of which nothing is used yet.
func integrationUsage() *usage { return new(Usage).integration("graph") }

// taken takes a request's part for org acme, which must succeed.
func taken(t *testing.T, u *usage, l *limits, org string) held {
	t.Helper()
	h, refused := u.take(l, false, org, "jobs")
	require.Nil(t, refused)
	return h
}

// refusedFor returns for how long the org is to wait.
func refusedFor(t *testing.T, u *usage, l *limits, org, caller string) time.Duration {
	t.Helper()
	h, refused := u.take(l, true, org, caller)
	require.NotNil(t, refused)
	require.Equal(t, codeRateLimited, refused.code)
	require.Equal(t, held{}, h)
	return refused.retryAfter
}

func TestAnOrgOverItsRateWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, l := integrationUsage(), limitsOf(t, Limits{PerOrg: Quota{Rate: 0.5, Burst: 3}})
		for range 3 {
			taken(t, u, l, "acme").release()
		}
		for range 10 { // a refused request takes nothing: the wait does not grow
			require.Equal(t, 2*time.Second, refusedFor(t, u, l, "acme", "jobs"))
		}
		taken(t, u, l, "globex").release()
		time.Sleep(1500 * time.Millisecond)
		require.Equal(t, 500*time.Millisecond, refusedFor(t, u, l, "acme", "jobs"))
		time.Sleep(500 * time.Millisecond)
		taken(t, u, l, "acme").release()
		require.Equal(t, 2*time.Second, refusedFor(t, u, l, "acme", "jobs"))
		time.Sleep(time.Hour)
		for range 3 { // and never more than the burst
			taken(t, u, l, "acme").release()
		}
		refusedFor(t, u, l, "acme", "jobs")
	})
}

func TestABurstIsTheRateUnlessItIsGiven(t *testing.T) {
	require.Equal(t, 3, limitsOf(t, Limits{PerOrg: Quota{Rate: 2.5}}).org.Burst)
	require.Equal(t, 1, limitsOf(t, Limits{PerCaller: Quota{Rate: 0.001}}).caller.Burst)
	require.Nil(t, limitsOf(t, Limits{IgnoreRetryAfter: true}), "nothing to look at")
}

func TestWhatIsNoLimitIsRefused(t *testing.T) {
	for name, cfg := range map[string]Limits{
		"negative total":       {Concurrent: -1},
		"negative concurrency": {PerOrg: Quota{Concurrent: -1}},
		"negative burst":       {PerCaller: Quota{Rate: 1, Burst: -1}},
		"negative rate":        {PerCaller: Quota{Rate: -1}},
		"no number":            {PerOrg: Quota{Rate: math.NaN()}},
		"infinite":             {PerOrg: Quota{Rate: math.Inf(1)}},
		"almost never":         {PerOrg: Quota{Rate: 1e-12}},
	} {
		_, err := newLimits(cfg)
		require.Error(t, err, name)
	}
}

// Otherwise a caller that floods would empty the buckets of the orgs that it names.
func TestWhatTheCallerIsRefusedCostsItsOrgNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, l := integrationUsage(), limitsOf(t, Limits{PerOrg: Quota{Rate: 1, Burst: 2, Concurrent: 5}, PerCaller: Quota{Rate: 1, Burst: 1}})
		taken(t, u, l, "acme")
		for range 20 {
			refusedFor(t, u, l, "acme", "jobs")
		}
		_, refused := u.take(l, false, "acme", "others")
		require.Nil(t, refused)
		for range 20 { // nor does what the org is refused cost the caller anything
			refusedFor(t, u, l, "acme", "third")
		}
		_, refused = u.take(l, false, "globex", "third")
		require.Nil(t, refused)
	})
}

func TestTheTotalIsForAllOrgs(t *testing.T) {
	u, l := integrationUsage(), limitsOf(t, Limits{Concurrent: 2, PerOrg: Quota{Rate: 1e-3, Burst: 2}})
	first := taken(t, u, l, "acme")
	taken(t, u, l, "globex")
	for range 5 {
		_, refused := u.take(l, false, "initech", "")
		require.Equal(t, codeOverloaded, refused.code)
	}
	first.release()
	h := taken(t, u, l, "initech")
	h.release()
	taken(t, u, l, "initech") // what was refused before took nothing of the org's burst of two
}

func TestAChangedQuotaAppliesAtOnceAndIsNoGift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := integrationUsage()
		small, large := limitsOf(t, Limits{PerOrg: Quota{Rate: 1, Burst: 1}}), limitsOf(t, Limits{PerOrg: Quota{Rate: 10, Burst: 10}})
		taken(t, u, small, "acme")
		require.Equal(t, time.Second, refusedFor(t, u, small, "acme", ""))
		require.Equal(t, 100*time.Millisecond, refusedFor(t, u, large, "acme", ""))
		time.Sleep(time.Second)
		for range 10 {
			taken(t, u, large, "acme")
		}
		refusedFor(t, u, large, "acme", "")
		time.Sleep(time.Second)
		taken(t, u, small, "acme")
		refusedFor(t, u, small, "acme", "")

		// A share that was made when nothing was limited but the concurrency begins with a full bucket.
		taken(t, u, limitsOf(t, Limits{PerOrg: Quota{Concurrent: 100}}), "globex")
		taken(t, u, small, "globex")
		require.Equal(t, time.Second, refusedFor(t, u, limitsOf(t, Limits{PerOrg: Quota{Concurrent: 2}}), "globex", ""))
	})
}

func TestAPauseIsOfOneOrgAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := integrationUsage()
		require.False(t, u.pausing(time.Now()))
		u.pause("acme", time.Now().Add(30*time.Second))
		u.pause("acme", time.Now().Add(10*time.Second)) // the longer one stands
		require.True(t, u.pausing(time.Now()))
		for _, l := range []*limits{nil, limitsOf(t, Limits{Concurrent: 5}), limitsOf(t, Limits{PerOrg: Quota{Rate: 1}})} {
			require.Equal(t, 30*time.Second, refusedFor(t, u, l, "acme", ""))
			h, refused := u.take(l, true, "globex", "")
			require.Nil(t, refused)
			h.release()
			_, refused = u.take(l, false, "acme", "") // where pauses are ignored
			require.Nil(t, refused)
		}
		time.Sleep(29 * time.Second)
		require.Equal(t, time.Second, refusedFor(t, u, nil, "acme", ""))
		time.Sleep(time.Second)
		require.False(t, u.pausing(time.Now()), "and then costs nothing any more")
		_, refused := u.take(nil, true, "acme", "")
		require.Nil(t, refused)
	})
}

func TestWhatAnUpstreamCanAskFor(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"7":                              7 * time.Second,
		"60":                             time.Minute,
		"3600":                           time.Minute,
		"99999999999999999999999999":     time.Minute,
		"-5":                             0,
		"+5":                             0,
		"1.5":                            0,
		"1e3":                            0,
		"soon":                           0,
		"Sun, 01 Nov 2026 12:00:20 GMT":  20 * time.Second,
		"Sunday, 01-Nov-26 12:00:20 GMT": 20 * time.Second,
		"Sun, 01 Nov 2026 13:00:00 GMT":  time.Minute,
		"Sun, 01 Nov 2026 11:59:00 GMT":  0,
	} {
		require.Equal(t, want, pauseOf(http.Header{"Retry-After": {value}}, now), value)
	}
	require.Zero(t, pauseOf(http.Header{}, now))
}

func TestMadeUpOrgsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, l := integrationUsage(), limitsOf(t, Limits{PerOrg: Quota{Rate: 100, Burst: 1, Concurrent: 1}})
		slow := limitsOf(t, Limits{PerOrg: Quota{Rate: 1e-5}})
		u.pause("asked-to-wait", time.Now().Add(time.Hour))
		underWay := taken(t, u, l, "under-way")
		taken(t, u, slow, "spent").release()
		for i := range 50_000 {
			taken(t, u, l, fmt.Sprint("org-", i)).release()
			time.Sleep(time.Millisecond) // so that ten are in use at a time
		}
		known := 0
		u.orgs.byName.Range(func(any, any) bool { known++; return true })
		require.Len(t, u.orgs.ring, known)
		require.Less(t, known, 40)

		refusedFor(t, u, l, "asked-to-wait", "")
		refusedFor(t, u, l, "under-way", "")
		require.Greater(t, refusedFor(t, u, slow, "spent", ""), time.Hour)
		underWay.release()
	})
}

// Between its being marked and its leaving the map a share can still be found there.
func TestAShareThatIsGoneIsNotUsedAnyMore(t *testing.T) {
	u := integrationUsage()
	old := u.orgs.locked("acme")
	old.unlock()
	require.True(t, old.retire(time.Now()))
	require.Nil(t, u.orgs.lockedIfKnown("acme"))
	fresh := u.orgs.locked("acme")
	defer fresh.unlock()
	require.NotSame(t, old, fresh)
	found, _ := u.orgs.byName.Load("acme")
	require.Same(t, fresh, found)
}

// TestSharesAreCountedExactly drives few orgs that come and go, so that shares are dropped while others look for them.
func TestSharesAreCountedExactly(t *testing.T) {
	const workers, rounds, most = 16, 3000, 3
	u := integrationUsage()
	l := limitsOf(t, Limits{PerOrg: Quota{Concurrent: most}, PerCaller: Quota{Concurrent: 2 * most}, Concurrent: 4 * most})
	var orgs [4]atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				n := (w + i) % len(orgs)
				h, refused := u.take(l, i%2 == 0, fmt.Sprint("org-", n), fmt.Sprint("caller-", i%2))
				if refused != nil {
					continue
				}
				if now := orgs[n].Add(1); now > most {
					t.Errorf("%d requests of one org are under way", now)
				}
				u.orgs.locked(fmt.Sprint("made-up-", w, "-", i)).unlock()
				orgs[n].Add(-1)
				h.release()
			}
		})
	}
	wg.Wait()
	require.Zero(t, u.underWay.Load())
	for _, all := range []*shares{&u.orgs, &u.callers} {
		for _, s := range all.ring {
			require.Zero(t, s.underWay)
			require.False(t, s.gone)
			found, _ := all.byName.Load(s.name)
			require.Same(t, s, found)
		}
	}
}

func TestTakingAShareAllocatesNothing(t *testing.T) {
	u := integrationUsage()
	l := limitsOf(t, Limits{PerOrg: Quota{Rate: maxRate, Concurrent: 5}, PerCaller: Quota{Rate: maxRate, Concurrent: 5}, Concurrent: 5})
	org := strings.ToLower("ACME") // no constant: those are boxed for nothing
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		h, _ := u.take(l, true, org, "jobs")
		h.release()
	}))
}

func BenchmarkLimits(b *testing.B) {
	u := integrationUsage()
	l := limitsOf(b, Limits{PerOrg: Quota{Rate: maxRate, Concurrent: 5}, PerCaller: Quota{Rate: maxRate, Concurrent: 5}, Concurrent: 5})
	b.ReportAllocs()
	for b.Loop() {
		h, _ := u.take(l, false, "acme", "jobs")
		h.release()
	}
}
