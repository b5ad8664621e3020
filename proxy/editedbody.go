package proxy

import (
	"io"
	"net/http"
	"sync"
)

// finder finds what is to be replaced in a body.
type finder interface {
	// find returns the first place to replace in b: b[start:end], and what goes there. If end is start there is none, and
	// b[:start] is decided: nothing to replace begins in it. before is the byte before b, 0 at the very beginning; last says
	// that nothing will follow. What is decided or replaced is not seen again; what is not is the beginning of the next b.
	find(b []byte, before byte, last bool) (start, end int, with string)
}

// editedBody replaces parts of a body while it passes. Whatever the body gives is handed on at once, but for the last bytes that
// could be the beginning of something to replace; what is longer than one buffer is not replaced. All errors of the body are
// its own, and what was held back comes before them.
type editedBody struct {
	src     io.ReadCloser
	finder  finder
	buffers *buffers

	mu      sync.Mutex // guards the two below. A Read under way when Close is called still needs the buffer
	reading bool
	closed  bool

	buf    []byte // nil before the first Read, and once it is given back
	r, w   int    // buf[r:w] has been read and not been handed on
	keep   int    // so much of it is handed on as it is,
	drop   int    // so much after it is left out,
	with   string // and this stands there
	before byte   // the one before what is not decided yet
	err    error  // of src
}

func (b *editedBody) Read(p []byte) (int, error) {
	if !b.beginRead() {
		return 0, http.ErrBodyReadAfterClose
	}
	defer b.endRead()
	for n := 0; ; {
		n += b.handOn(p[n:])
		switch {
		case n == len(p):
			return n, nil
		case b.decide():
		case n > 0:
			return n, nil
		case b.err != nil:
			return 0, b.err
		default:
			b.fill()
		}
	}
}

// handOn copies what is decided.
func (b *editedBody) handOn(p []byte) (n int) {
	n = copy(p, b.buf[b.r:b.r+b.keep])
	b.r += n
	b.keep -= n
	if b.keep > 0 {
		return n
	}
	b.r += b.drop
	b.drop = 0
	k := copy(p[n:], b.with)
	b.with = b.with[k:]
	return n + k
}

// decide looks for the next place to replace once everything decided is handed on, and reports whether it got on.
func (b *editedBody) decide() bool {
	if b.r == b.w {
		return false
	}
	rest := b.buf[b.r:b.w]
	start, end, with := b.finder.find(rest, b.before, b.err != nil || len(rest) == len(b.buf))
	if end == 0 {
		return false
	}
	b.keep, b.drop, b.with = start, end-start, with
	b.before = rest[end-1]
	return true
}

func (b *editedBody) fill() {
	b.w = copy(b.buf, b.buf[b.r:b.w])
	b.r = 0
	var n int
	n, b.err = b.src.Read(b.buf[b.w:])
	b.w += n
}

// Close closes the body. It may be called while Read waits for it.
func (b *editedBody) Close() error {
	err := b.src.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.releaseLocked()
	return err
}

func (b *editedBody) beginRead() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.reading = true
	if b.buf == nil {
		b.buf = b.buffers.get(false)
	}
	return true
}

func (b *editedBody) endRead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	b.releaseLocked()
}

// releaseLocked gives the buffer back once nobody uses it.
func (b *editedBody) releaseLocked() {
	if b.closed && !b.reading && b.buf != nil {
		b.buffers.put(b.buf)
		b.buf = nil
	}
}
