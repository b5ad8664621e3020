package proxy

import (
	"io"
	"net/http"
	"sync"
	"time"
)

// How long a caller may stand still. The limits are on standstill: what trickles takes as long as it takes. A reader is seen to
// read only when it opens its window again, some hundred KiB at a time: at 1 KB/s that is every six minutes.
const (
	defaultBodyIdle  = time.Minute
	defaultWriteIdle = 10 * time.Minute
)

// idle ends an operation that waits for the caller longer than limit. One operation is watched at a time, each anew: the time
// between two of them is the upstream's, and costs nothing but a timer that may fire for nothing.
type idle struct {
	limit time.Duration
	cut   func() // makes the waiting operation fail; called once at most, and never after stop

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	ticking bool
	since   time.Time // the operation's begin; zero: there is none
	over    bool
	hasCut  bool
}

// begin says that an operation begins, and end that it has ended. A nil idle watches nothing.
func (i *idle) begin() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.since = time.Now()
	switch {
	case i.over || i.ticking:
		return
	case i.timer == nil:
		i.timer = time.AfterFunc(i.limit, i.look)
	default:
		i.timer.Reset(i.limit)
	}
	i.ticking = true
}

func (i *idle) end() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.since = time.Time{}
}

// look is the timer's.
func (i *idle) look() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ticking = false
	if i.over || i.since.IsZero() {
		return
	}
	if left := i.limit - time.Since(i.since); left > 0 {
		i.timer.Reset(left)
		i.ticking = true
		return
	}
	i.over, i.hasCut = true, true
	i.cut()
}

// stop ends the watch and reports whether it has cut an operation. One under way is not watched any more.
func (i *idle) stop() (cut bool) {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.over = true
	if i.timer != nil {
		i.timer.Stop()
	}
	return i.hasCut
}

// past is a deadline that ends what waits.
var past = time.Unix(1, 0)

// watchBody watches the reading of the request's body, until the upstream begins to answer: from then on the caller may have
// good reasons to wait with the rest.
func (x *exchange) watchBody(src io.Reader) io.Reader {
	if x.proxy.bodyIdle <= 0 {
		return src
	}
	rc := http.NewResponseController(x.w)
	x.bodyIdle = &idle{limit: x.proxy.bodyIdle, cut: func() { _ = rc.SetReadDeadline(past) }} // where there is none, nothing waits
	return &watchedReader{src, x.bodyIdle}
}

type watchedReader struct {
	io.Reader
	idle *idle
}

func (r *watchedReader) Read(p []byte) (int, error) {
	r.idle.begin()
	defer r.idle.end()
	return r.Reader.Read(p)
}

// forwardStream is forward for HTTP/2. The connection's own limit on what the caller does not take is no help where other
// streams of it go on, so that each answer has one.
func (x *exchange) forwardStream() {
	defer func() { x.bodyIdle.stop() }()
	if x.proxy.writeIdle <= 0 {
		x.serve(x.w)
		return
	}
	rc := http.NewResponseController(x.w)
	w := &streamWriter{ResponseWriter: x.w, rc: rc, idle: idle{limit: x.proxy.writeIdle, cut: func() { _ = rc.SetWriteDeadline(past) }}}
	defer func() {
		if w.idle.stop() {
			x.code = codeClientGone
		}
	}()
	x.serve(w)
	w.idle.stop()
	x.limitRest()
}

// limitRest bounds the time in which the buffered end of an answer over HTTP/2 is taken, after the handler has returned. The
// end of the stream clears the deadline.
func (x *exchange) limitRest() {
	if x.r.ProtoMajor != 1 && x.proxy.writeIdle > 0 {
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(x.proxy.writeIdle)) // not supported outside of net/http's server
	}
}

// streamWriter watches every write of an answer over HTTP/2, whose stream has a flow control of its own.
type streamWriter struct {
	http.ResponseWriter
	rc   *http.ResponseController
	idle idle
}

// Unwrap is for http.ResponseController.
func (w *streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *streamWriter) Write(p []byte) (int, error) {
	w.idle.begin()
	defer w.idle.end()
	return w.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (w *streamWriter) FlushError() error {
	w.idle.begin()
	defer w.idle.end()
	return w.rc.Flush()
}
