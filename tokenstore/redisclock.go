package tokenstore

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	clockAlarm = 2 * time.Second  // an offset over it is told: deadlines that replicas share are off by so much
	clockLimit = 30 * time.Second // over it no lease is given: they may be off by more than a refresh takes
)

// clock compares this machine's clock with the server's, whenever a lease is taken. Every replica compares with the same
// clock, so that two of them differ by no more than the sum of their offsets.
type clock struct {
	now    func() time.Time // time.Now
	offset prometheus.Gauge
	log    *slog.Logger
	told   rarely
}

// check returns ErrClock if the server's time, read between sent and received, is too far from ours.
func (c *clock) check(server, sent, received time.Time) error {
	offset := server.Sub(sent.Add(received.Sub(sent) / 2)).Round(time.Millisecond)
	c.offset.Set(offset.Seconds())
	if offset.Abs() <= clockAlarm {
		return nil
	}
	if c.told.now() {
		c.log.Error("this machine's clock and redis's differ: synchronise both, refreshes stop when they are too far apart",
			"offset_seconds", offset.Seconds(), "limit_seconds", clockLimit.Seconds())
	}
	if offset.Abs() <= clockLimit {
		return nil
	}
	return fmt.Errorf("%w: by %v: synchronise both, leases need them within %v", ErrClock, offset.Abs(), clockLimit)
}

// rarely says yes once a minute. The zero value is ready.
type rarely struct {
	mu   sync.Mutex // guards last
	last time.Time
}

func (r *rarely) now() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.IsZero() && time.Since(r.last) < time.Minute {
		return false
	}
	r.last = time.Now()
	return true
}
