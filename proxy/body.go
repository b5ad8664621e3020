package proxy

import (
	"errors"
	"io"
	"sync"
)

// bodyError is an error of reading the caller's body, to be told from an upstream's.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "reading the request body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// replayBody hands one request body to one attempt after the other. While it is read it keeps a copy, up to a limit; as long
// as the copy is whole, another attempt can begin at the first byte, and goes on reading where the copy ends.
type replayBody struct {
	reading sync.Mutex // held while src is read, which can take as long as the caller likes
	src     io.Reader

	mu    sync.Mutex // guards all below and the attempts' fields; never held while src is read
	limit int64
	copy  []byte
	over  bool // more was read than the copy holds
	read  int64
	err   error // of src, EOF included
}

// newReplayBody keeps at most limit bytes of src, whose length is declared (-1: unknown).
func newReplayBody(src io.Reader, declared, limit int64) *replayBody {
	b := &replayBody{src: src, limit: limit}
	switch {
	case declared > limit:
		b.limit = -1 // it could never be replayed: keep nothing
	case declared > 0:
		b.copy = make([]byte, 0, declared)
	}
	return b
}

// replayable reports whether a new attempt could see the whole body. Attempts that are not closed yet can make it
// unreplayable.
func (b *replayBody) replayable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over && (b.err == nil || b.err == io.EOF)
}

// progress returns how much was read, and whether that was all.
func (b *replayBody) progress() (read int64, atEOF bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read, b.err == io.EOF
}

// nextAttempt is an http.Request's GetBody: the transport begins anew where a connection turned out to be dead.
func (b *replayBody) nextAttempt() (io.ReadCloser, error) {
	if !b.replayable() {
		return nil, errBodyClosed
	}
	return b.attempt(), nil
}

// attempt returns a reader that starts at the first byte. The reader before it must be closed.
func (b *replayBody) attempt() *attemptBody { return &attemptBody{body: b} }

var errBodyClosed = errors.New("the attempt is over")

// attemptBody is one attempt's view of the body.
type attemptBody struct {
	body   *replayBody
	offset int
	closed bool
}

// Close ends the attempt, without waiting for a Read that is under way: what that Read still gets goes into the copy.
func (a *attemptBody) Close() error {
	a.body.mu.Lock()
	defer a.body.mu.Unlock()
	a.closed = true
	return nil
}

func (a *attemptBody) Read(p []byte) (int, error) {
	if n, err, done := a.readCopy(p); done {
		return n, err
	}
	b := a.body
	b.reading.Lock()
	defer b.reading.Unlock()
	if n, err, done := a.readCopy(p); done { // by the attempt before, while we waited
		return n, err
	}
	n, err := b.src.Read(p)
	return n, a.keep(p[:n], err)
}

// readCopy serves what needs no reading of the source.
func (a *attemptBody) readCopy(p []byte) (n int, err error, done bool) {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case a.closed:
		return 0, errBodyClosed, true
	case a.offset < len(b.copy):
		n = copy(p, b.copy[a.offset:])
		a.offset += n
		return n, nil, true
	case b.err != nil:
		return 0, b.err, true
	}
	return 0, nil, false
}

// keep notes what was read. A closed attempt's last bytes are kept beyond the limit: the next attempt needs them.
func (a *attemptBody) keep(got []byte, err error) error {
	b := a.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil && err != io.EOF {
		err = &bodyError{err}
	}
	b.read += int64(len(got))
	b.err = err
	switch {
	case b.over:
	case a.closed || int64(len(b.copy)+len(got)) <= b.limit:
		b.copy = append(b.copy, got...)
		a.offset = len(b.copy)
	default:
		b.over, b.copy, a.offset = true, nil, 0
	}
	return err
}
