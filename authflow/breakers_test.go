package authflow_test

import (
	"runtime"
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

// asked is how a request for a token ended.
type asked struct {
	err  error
	took time.Duration
}

// askAll asks for the tokens of all slots at the same time; the answers come through the channel, which is then closed.
func (w *world) askAll(slots []tokenstore.Slot) <-chan asked {
	answers := make(chan asked, len(slots))
	var all sync.WaitGroup
	for _, s := range slots {
		all.Go(func() {
			began := time.Now()
			_, err := w.Token(w.Context(), s)
			answers <- asked{err, time.Since(began)}
		})
	}
	go func() { // ends with them
		all.Wait()
		close(answers)
	}()
	return answers
}

func TestProviderThatNeverAnswersCostsItsOwnRequestsOnly(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		const asking = 1000
		hole, dead := w.besideDead(asking)
		orgs := w.connectMany(20)
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.SlowBefore(50 * time.Millisecond))
		synctest.Wait()
		idle := runtime.NumGoroutine()
		answers := w.askAll(dead)
		synctest.Wait()
		busy := runtime.NumGoroutine() - idle
		t.Logf("%d orgs ask: %d goroutines", asking, busy)
		require.LessOrEqual(t, busy, 2*asking+40, "one for each request, and one for each refresh")
		for _, org := range orgs {
			began := time.Now()
			w.use(w.Broker, org)
			require.Less(t, time.Since(began), 100*time.Millisecond)
		}
		for answer := range answers {
			require.ErrorIs(t, answer.err, authflow.ErrPending)
			require.Positive(t, asError(t, answer.err).RetryAfter)
		}
		pass(30 * time.Second)
		require.LessOrEqual(t, runtime.NumGoroutine()-idle, 40, "the host is left alone, but for probes")
		posts, most := hole.seen()
		t.Logf("%d POSTs, %d at a time", posts, most)
		require.LessOrEqual(t, most, 32)
		require.LessOrEqual(t, posts, 80)

		refused := 0
		for range 60 {
			for answer := range w.askAll(dead) {
				require.Positive(t, asError(t, answer.err).RetryAfter)
				if answer.took == 0 {
					require.ErrorIs(t, answer.err, authflow.ErrProvider)
					refused++
				}
			}
			pass(time.Second)
		}
		require.Greater(t, refused, 50*asking)
		again, _ := hole.seen()
		require.InDelta(t, 60, again-posts, 60, "one probe of the host in 5 to 15 s")
	})
}

func TestProviderThatNeverAnswersIsNoticedWhenTokensHaveRunOut(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		_, dead := w.besideDead(100)
		w.sweep(w.Broker)
		for range 59 * 60 {
			for answer := range w.askAll(dead) {
				require.NoError(t, answer.err, "their tokens are valid")
				require.Zero(t, answer.took)
			}
			pass(time.Second)
		}
		pass(time.Minute)
		refused := 0
		for answer := range w.askAll(dead) {
			require.Positive(t, asError(t, answer.err).RetryAfter)
			if answer.took == 0 {
				require.ErrorIs(t, answer.err, authflow.ErrProvider)
				refused++
			}
		}
		require.Greater(t, refused, 90, "all but a probe are answered at once")
	})
}

func TestHostThatAnswersAgainIsAskedByAllWithinFifteenSeconds(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		hole, dead := w.besideDead(40)
		pass(2 * time.Hour)
		for range w.askAll(dead) {
		}
		pass(time.Minute)
		for range w.askAll(dead[:1]) { // a probe that hangs longer than the provider does
		}
		hole.answer(w.provider.Transport())
		back := time.Now()
		for _, s := range dead[1:] {
			for {
				_, err := w.Token(t.Context(), s)
				if asError(t, err).Reason == authflow.ErrReconnect {
					break // the provider answers; it does not know these grants
				}
				require.Less(t, time.Since(back), 15*time.Second)
				pass(100 * time.Millisecond)
			}
		}
	})
}

// After an unknown outcome a reusable token is POSTed again at once; every flight used to do so also when the others' outcomes
// had shown meanwhile that nobody answers.
func TestPostIsNotRepeatedAtAHostThatWasFoundSilentMeanwhile(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		hole, dead := w.besideDead(32)
		pass(2 * time.Hour)
		for range w.askAll(dead) {
		}
		pass(time.Minute)
		posts, most := hole.seen()
		require.Equal(t, 32, most)
		require.LessOrEqual(t, posts, 32+5+1, "and a probe")
		require.Greater(t, posts, 32, "one alone is repeated")
	})
}

// A probe that finds the record changed just before its POST begins anew; it used to be held back by itself then, and the
// endpoint was left alone for as long again.
func TestProbeThatFindsTheRecordChangedIsMadeAllTheSame(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		orgs := w.connectMany(6)
		pass(2 * time.Hour)
		w.provider.MisbehaveAlways(authflowtest.Status(503, ""))
		for _, org := range orgs[:5] {
			_, err := w.Token(t.Context(), slot(org))
			require.ErrorIs(t, err, authflow.ErrProvider)
		}
		w.provider.Behave()
		pass(15 * time.Second)
		noted := func() {
			rec, err := w.store.Backend.Get(t.Context(), slot(orgs[5]))
			require.NoError(t, err)
			prev := rec.Version()
			rec.Used = time.Now()
			require.NoError(t, w.store.Backend.Save(t.Context(), slot(orgs[5]), rec, prev))
		}
		w.store.beforeSave.Store(&noted)
		w.use(w.Broker, orgs[5])
	})
}

func TestAnswerOfAnyKindOpensTheHost(t *testing.T) {
	inWorld(t, rotating, func(t *testing.T, w *world) {
		w.store.Backend = storetest.NewMemory()
		hole, dead := w.besideDead(40)
		hole.answer(w.provider.Transport())
		w.provider.MisbehaveAlways(authflowtest.Status(503, ""))
		pass(2 * time.Hour)
		for range w.askAll(dead) {
		}
		require.Equal(t, 40, w.provider.Count("refresh_token"), "each endpoint has failed once")
	})
}
