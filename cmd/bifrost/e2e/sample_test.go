package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// sample is how a request ended.
type sample struct {
	at      time.Time // when it began
	took    time.Duration
	outcome string
}

// samples may be added to by any goroutine.
type samples struct {
	flying sync.WaitGroup

	mu  sync.Mutex // guards all
	all []sample
}

// send sends a request behind the caller, who waits for flying at last.
func (s *samples) send(r *replica, req *http.Request) {
	s.flying.Go(func() { // ends with its answer, at the client's timeout at the latest
		began := time.Now()
		got := outcome(r.try(req))
		took := time.Since(began)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = append(s.all, sample{began, took, got})
	})
}

// steadily calls fn at every tick for d, whatever fn has left under way.
func steadily(d, every time.Duration, fn func(i int)) {
	tick, end := time.NewTicker(every), time.After(d)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			fn(i)
		case <-end:
			return
		}
	}
}

// outcomes counts the samples that began at that time or later, by how they ended.
func (s *samples) outcomes(from time.Time) map[string]int {
	s.flying.Wait()
	counts := map[string]int{}
	for _, one := range s.all {
		if !one.at.Before(from) {
			counts[one.outcome]++
		}
	}
	return counts
}

// quantile returns the time that the given share of the requests took at most; 1: the slowest.
func (s *samples) quantile(share float64) time.Duration {
	s.flying.Wait()
	var took []time.Duration
	for _, one := range s.all {
		took = append(took, one.took)
	}
	slices.Sort(took)
	if len(took) == 0 {
		return 0
	}
	return took[min(int(share*float64(len(took))), len(took)-1)]
}

func (s *samples) String() string {
	return fmt.Sprintf("%v, half within %v, 99 %% within %v, all within %v",
		s.outcomes(time.Time{}), s.quantile(.5), s.quantile(.99), s.quantile(1))
}
