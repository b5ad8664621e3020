package authflow_test

import (
	"cmp"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
)

// How to run more of the simulator than a test of the package does; see `make simulate`.
var (
	simEpisodes = flag.Int("sim.episodes", 0, "run so many episodes of one kind; 0: a few of each")
	simSeed     = flag.Uint64("sim.seed", 0, "run the episode of this seed alone, and show its history")
	simCrashes  = flag.Bool("sim.crashes", false, "replicas die")
	simDestroys = flag.Bool("sim.destroys", false, "the network destroys answers to POSTs that were processed")
	simFailures = flag.Int("sim.failures", 3, "stop after so many episodes that failed")
)

// TestSimulator runs the refresh protocol of three replicas through random episodes of faults, and checks the history of each:
// see sim_check_test.go for what must hold, and sim_loss_test.go for what a grant may be lost by.
func TestSimulator(t *testing.T) {
	kinds := []simOptions{{}, {destroys: true}, {crashes: true}}
	episodes, first := 120, uint64(1)
	if *simEpisodes > 0 || *simSeed > 0 {
		kinds = []simOptions{{crashes: *simCrashes, destroys: *simDestroys}}
		episodes = max(*simEpisodes, 1)
		first = max(*simSeed, 1)
	}
	for _, kind := range kinds {
		t.Run(kind.String(), func(t *testing.T) {
			table := &simTable{began: time.Now()}
			t.Cleanup(func() { t.Log("\n" + table.String()) })
			for worker := range 2 {
				t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
					t.Parallel()
					for i := worker; i < episodes && table.failures() < *simFailures; i += 2 {
						s := simulate(t, simulated(first+uint64(i), kind))
						table.add(s)
						s.report(t)
					}
				})
			}
		})
	}
}

func (o simOptions) String() string {
	switch {
	case o.crashes && o.destroys:
		return "crashes and destroyed answers"
	case o.crashes:
		return "crashes"
	case o.destroys:
		return "destroyed answers"
	}
	return "faults that pass"
}

// report shows what is wrong with an episode, and all that happened in it.
func (s *simulation) report(t *testing.T) {
	if len(s.wrong) == 0 {
		if *simSeed > 0 {
			t.Log("\n" + s.history())
		}
		return
	}
	t.Errorf("seed %d (%v):\n%s\n%s", s.plan.seed, s.plan.simOptions, strings.Join(s.wrong, "\n"), s.history())
}

// simTable adds up episodes by class.
type simTable struct {
	began time.Time

	mu   sync.Mutex // guards what follows
	rows map[authflow.RefreshClass]*simRow
	bad  int
}

type simRow struct {
	episodes, posts, served, dead, failed, falsely int
	lost                                           map[simCause]int
}

func (a *simTable) add(s *simulation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rows == nil {
		a.rows = map[authflow.RefreshClass]*simRow{}
	}
	row := a.rows[s.plan.class]
	if row == nil {
		row = &simRow{lost: map[simCause]int{}}
		a.rows[s.plan.class] = row
	}
	row.episodes++
	row.posts += len(s.posts)
	row.failed += s.failed
	row.falsely += s.falsely
	for _, served := range s.serves {
		row.served++
		if !served.alive {
			row.dead++
		}
	}
	for _, loss := range s.losses {
		row.lost[loss.cause]++
	}
	if len(s.wrong) > 0 {
		a.bad++
	}
}

func (a *simTable) failures() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bad
}

func (a *simTable) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s %9s %9s", "class", "episodes", "POSTs")
	for _, cause := range simCauses {
		fmt.Fprintf(&b, " %13s", "lost:"+cause)
	}
	fmt.Fprintf(&b, " %13s %9s %9s %9s\n", "falsely marked", "served", "stale", "failed")
	total := 0
	for _, class := range simClasses {
		row := cmp.Or(a.rows[class], &simRow{})
		total += row.episodes
		fmt.Fprintf(&b, "%-10s %9d %9d", class, row.episodes, row.posts)
		for _, cause := range simCauses {
			fmt.Fprintf(&b, " %13d", row.lost[cause])
		}
		fmt.Fprintf(&b, " %14d %9d %9d %9d\n", row.falsely, row.served, row.dead, row.failed)
	}
	fmt.Fprintf(&b, "%d episodes in %v, %d of them violate an invariant\n", total, time.Since(a.began).Round(time.Millisecond), a.bad)
	return b.String()
}
