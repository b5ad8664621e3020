package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/config"
)

// auditLog writes one JSON line per event before whoever acted is answered. What cannot be written is logged and counted, and
// fails no action.
type auditLog struct {
	log      *slog.Logger
	failures prometheus.Counter
	stdout   io.Writer

	place   atomic.Pointer[auditPlace] // nil: the audit log is not configured
	failing atomic.Bool                // the last line was not written
}

// newAuditLog returns an audit log that writes nowhere before follow. A nil Registerer measures for nobody.
func newAuditLog(stdout io.Writer, reg prometheus.Registerer, log *slog.Logger) *auditLog {
	return &auditLog{
		log: log, stdout: stdout,
		failures: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "bifrost_audit_failures_total",
			Help: "Lines of the audit log that could not be written.",
		}),
	}
}

// follow has the next line go to another place, if it is another. On an error nothing changes. One goroutine calls it.
func (a *auditLog) follow(to config.Audit) error {
	move, err := a.prepare(to)
	if err == nil {
		move(nil)
	}
	return err
}

// prepare makes sure that a place can be written, and returns what has the next line go there, if it is another place than now;
// last, if it is not nil, is the last line of the one before.
func (a *auditLog) prepare(to config.Audit) (move func(last *authflow.Event), err error) {
	before := a.place.Load()
	if before.is(to) {
		return func(*authflow.Event) {}, nil
	}
	var next *auditPlace
	if to != (config.Audit{}) {
		next = newAuditPlace(to, a.stdout)
		if err := next.reach(); err != nil {
			return nil, err
		}
		next.letGo() // until there is a line: what calls prepare may go no further
	}
	return func(last *authflow.Event) {
		if to.Stdout {
			signal.Ignore(syscall.SIGPIPE) // a stdout whose reader has gone is an error, not the end
		}
		if last != nil {
			a.record(*last)
		}
		a.place.Store(next)
		before.letGo()
	}, nil
}

// reopen has the next line open the file, whatever file it is then.
func (a *auditLog) reopen() { a.place.Load().letGo() }

// record writes an event's line.
func (a *auditLog) record(e authflow.Event) {
	place := a.place.Load()
	if place == nil {
		return
	}
	line, err := json.Marshal(e)
	if err == nil {
		err = place.append(append(line, '\n'))
	}
	if err == nil {
		if a.failing.Swap(false) {
			a.log.Info("the audit log is written again")
		}
		return
	}
	a.failures.Inc()
	if !a.failing.Swap(true) {
		a.log.Error("the audit log cannot be written; actions go on without it", "error", err)
	}
}

// audited tells of something that this process did by itself.
func (a *auditLog) audited(action authflow.Action, outcome string) { a.record(ours(action, outcome)) }

func ours(action authflow.Action, outcome string) authflow.Event {
	return authflow.Event{Time: time.Now(), Action: action, Actor: authflow.Itself, Outcome: outcome}
}

// outcomeOf is the Outcome of what is done or fails, and nothing between.
func outcomeOf(err error) string {
	if err != nil {
		return "failed"
	}
	return authflow.OK
}

// commandAudit returns the audit log for what a command does in place of a running serve. What is configured to go to stdout goes to
// stderr: a command's stdout is its answer, which scripts read. The command goes on without a log that cannot be opened.
func commandAudit(cfg *config.Config, std stdio, log *slog.Logger) *auditLog {
	a := newAuditLog(std.err, nil, log)
	if err := a.follow(cfg.Audit); err != nil {
		log.Error("the audit log cannot be written; the command goes on without it", "error", err)
	}
	return a
}

// auditPatience is how long an action waits for its line to be written, and before it for those of other actions: a disk that
// hangs, or a stdout that nobody reads, must not keep operators out.
const auditPatience = time.Second

var errAuditSlow = errors.New("it has taken nothing for " + auditPatience.String())
