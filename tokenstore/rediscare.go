package tokenstore

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// careEvery is how often a Redis is looked at.
const careEvery = time.Minute

// problem is something about a Redis that may cost connections, though it answers.
type problem string

const (
	problemEviction     problem = "eviction"     // it evicts keys when it is full
	problemPersistence  problem = "persistence"  // it keeps nothing over a restart
	problemSnapshots    problem = "snapshots"    // it keeps no more than its last snapshot over a crash
	problemDisk         problem = "disk"         // it could not write what it should keep
	problemReplication  problem = "replication"  // it is a replica, or has fewer replicas than writes wait for
	problemEmptied      problem = "emptied"      // it has lost the store, or a part
	problemUnverifiable problem = "unverifiable" // it does not tell all of that
)

// problems is the closed set.
var problems = []problem{problemEviction, problemPersistence, problemSnapshots, problemDisk, problemReplication, problemEmptied, problemUnverifiable}

// care looks at a Redis time and again. A problem is logged when it comes and when it goes, and shown as a metric.
type care struct {
	engine *redisEngine
	log    *slog.Logger
	gauge  *prometheus.GaugeVec
	beside func(context.Context) // what else is done every minute

	cancel context.CancelFunc
	done   sync.WaitGroup // the loop

	mu    sync.Mutex // guards found
	found map[problem]string
}

// startCare begins to look every minute until stop, after what was found at the start.
func startCare(e *redisEngine, log *slog.Logger, gauge *prometheus.GaugeVec, found map[problem]string, beside func(context.Context)) *care {
	ctx, cancel := context.WithCancel(context.Background())
	c := &care{engine: e, log: log, gauge: gauge, beside: beside, cancel: cancel}
	c.tell(found)
	c.done.Go(func() {
		tick := time.NewTicker(careEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				c.look(ctx)
				c.beside(ctx)
			}
		}
	})
	return c
}

// stop ends the loop and waits for its end.
func (c *care) stop() {
	c.cancel()
	c.done.Wait()
}

// look looks once. A Redis that does not answer leaves what was found before: every operation tells of that.
func (c *care) look(ctx context.Context) {
	err := c.engine.note(ctx)
	emptied := errors.Is(err, errEmptied)
	if err != nil && !emptied {
		return
	}
	found, err := c.engine.inspect(ctx)
	if err != nil {
		return
	}
	if emptied {
		found[problemEmptied] = "the store or a part of it is gone: restore its data, or restart bifrost to begin anew without it"
	}
	c.tell(found)
}

// tell logs what has changed and sets the metric.
func (c *care) tell(found map[problem]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range problems {
		text, is := found[p]
		_, was := c.found[p]
		switch {
		case is && !was:
			c.log.Warn("redis endangers the connections that it keeps", "problem", string(p), "what", text)
		case was && !is:
			c.log.Info("redis no longer has a problem", "problem", string(p))
		}
		value := 0.0
		if is {
			value = 1
		}
		c.gauge.WithLabelValues(string(p)).Set(value)
	}
	c.found = found
}

// names returns what was found last, sorted.
func (c *care) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := []string{}
	for _, p := range slices.Sorted(maps.Keys(c.found)) {
		names = append(names, string(p))
	}
	return names
}
