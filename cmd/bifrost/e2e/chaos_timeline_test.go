package e2e_test

import (
	"fmt"
	"sync"
	"time"
)

// timeline is what was done to the installation, and which outages that announces.
type timeline struct {
	mu      sync.Mutex // guards what follows
	began   time.Time
	entries []entry
	outages []*chaosOutage
}

// entry is a line of the timeline.
type entry struct {
	at   time.Time
	text string
}

// chaosOutage is a time in which requests may fail: of one replica, or of one connection at every replica, or all of them.
type chaosOutage struct {
	what        string
	node        string // empty: every one
	org         string // empty: every one
	from, until time.Time
	over        time.Time // when the cause was; zero: it is not
}

// never is the end of an outage that is not over.
var never = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func newTimeline() *timeline { return &timeline{began: time.Now()} }

func (l *timeline) note(format string, args ...any) time.Time {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry{now, fmt.Sprintf(format, args...)})
	return now
}

// announce begins an outage of a node (empty: of all). The function that it returns says that the cause is over, and that the
// outage ends some time later.
func (l *timeline) announce(node, format string, args ...any) (over func(after time.Duration)) {
	text := fmt.Sprintf(format, args...)
	o := &chaosOutage{what: text, node: node, from: l.note("%s", text), until: never}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outages = append(l.outages, o)
	return func(after time.Duration) {
		now := l.note("over: %s; an outage until %v from now", text, after)
		l.mu.Lock()
		defer l.mu.Unlock()
		o.over, o.until = now, now.Add(after)
	}
}

// excuses tells whether a request touched an outage.
func (o *chaosOutage) excuses(r *chaosRequest) bool {
	return (o.node == "" || o.node == r.node) && (o.org == "" || o.org == r.org) &&
		r.ended.After(o.from) && r.began.Before(o.until)
}

// since prints a time of the run.
func (l *timeline) since(at time.Time) string {
	return fmt.Sprintf("%8.3fs", at.Sub(l.began).Seconds())
}
