package main

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// hangUpLook is how long a request has been under way when it is first looked whether its caller has hung up.
const hangUpLook = 100 * time.Millisecond

// lazyRead sets the read deadline of a connection when a Read begins that could need it, and not whenever it is told to: around a
// small request net/http's server moves the deadline six times, of which a Read sees two, and each costs a lock and a timer. What
// a Read sees is as if each had been set at once.
//
// A Read of one byte without a deadline is that of net/http's server, which watches during a request whether its caller hangs up. It
// begins a little later: most requests are over by then, and are spared a Read that finds nothing and has to be broken off. (The only
// other one is for the last byte of a chunk's size line or a trailer of exactly 4 KiB.)
type lazyRead struct {
	mu      sync.Mutex // guards the fields below; never held while a Read waits
	wanted  time.Time  // as the connection's user set it; zero: none
	set     time.Time  // of the connection itself; not after wanted while a Read is under way
	reading bool

	change sync.Cond // of wanted or due, for a Read that begins later
	due    bool      // it is to begin
	timer  *time.Timer
}

// longAgo is later than every deadline that is set to end a Read at once.
var longAgo = time.Unix(1<<20, 0)

// setReadDeadline is SetReadDeadline of conn, whose every Read must go through read. As in net/http's server, one Read at a time is
// under way.
func (l *lazyRead) setReadDeadline(conn net.Conn, t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = t
	l.change.Signal()
	if !l.reading || !earlier(t, l.set) {
		return nil // the next Read sets it, or the one under way when it ends too early
	}
	l.set = t
	return conn.SetReadDeadline(t)
}

// read is conn's Read.
func (l *lazyRead) read(conn net.Conn, p []byte) (int, error) {
	if len(p) == 1 && !l.wait() {
		return 0, os.ErrDeadlineExceeded
	}
	l.begin(conn)
	n, err := conn.Read(p)
	for errors.Is(err, os.ErrDeadlineExceeded) && n == 0 && l.goOn(conn) {
		n, err = conn.Read(p)
	}
	l.mu.Lock()
	l.reading = false
	l.mu.Unlock()
	return n, err
}

// wait has a Read that watches for a hang-up begin later. It returns false if a deadline in the past ends it before.
func (l *lazyRead) wait() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.wanted.IsZero() {
		return true
	}
	l.due = false
	if l.timer == nil {
		l.change.L = &l.mu
		l.timer = time.AfterFunc(hangUpLook, l.hurry)
	} else {
		l.timer.Reset(hangUpLook)
	}
	for l.wanted.IsZero() && !l.due {
		l.change.Wait()
	}
	l.timer.Stop()
	return l.wanted.IsZero() || time.Until(l.wanted) > 0
}

// hurry has a Read begin that waits.
func (l *lazyRead) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = true
	l.change.Signal()
}

// begin has the Read to come end no later than is wanted. That it may end earlier costs less than to prevent it, unless it would
// end at once: net/http's server ends its background Read by a deadline long ago.
func (l *lazyRead) begin(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading = true
	if earlier(l.wanted, l.set) || l.set.Before(longAgo) && !l.set.IsZero() {
		l.set = l.wanted
		_ = conn.SetReadDeadline(l.set) // of a closed connection, at worst: the Read tells
	}
}

// goOn tells whether a Read that has just ended by a deadline did so earlier than is wanted, and prepares the next.
func (l *lazyRead) goOn(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted.Equal(l.set) {
		return false
	}
	l.set = l.wanted
	return conn.SetReadDeadline(l.set) == nil
}

// earlier tells whether a deadline comes before another, or at all where the other is none.
func earlier(t, other time.Time) bool {
	return !t.IsZero() && (other.IsZero() || t.Before(other))
}
