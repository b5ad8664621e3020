package main

import (
	"io"
	"sync"
	"time"
)

const (
	writePause    = 10 * time.Millisecond
	maxUnwritten  = 1 << 20     // bytes of log lines that wait for a slow reader of the log; who logs waits then
	flushPatience = time.Second // how long the end of the process waits for such a reader
)

// logWriter writes log lines behind those who log: the first at once, and those that come within writePause after it together.
// Under load a system call for each line, and the wake-ups around it, would cost as much as the rest of a small request.
type logWriter struct {
	w io.Writer

	mu      sync.Mutex // guards what follows
	taken   sync.Cond  // signals that pending was taken
	pending []byte
	spare   []byte        // pending's memory of the time before; nil while it is written
	drained chan struct{} // closed when all is written; nil: drain does not run
	hurried bool          // nobody waits any more: see hurry
}

func newLogWriter(w io.Writer) *logWriter {
	l := &logWriter{w: w}
	l.taken.L = &l.mu
	return l
}

// Write takes whole lines. It never fails: there is nobody to tell.
func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.pending) > maxUnwritten && !l.hurried {
		l.taken.Wait()
	}
	if len(l.pending) > maxUnwritten {
		return len(p), nil // lost: the process ends, and nobody reads its log
	}
	l.pending = append(l.pending, p...)
	if l.drained == nil {
		l.drained = make(chan struct{})
		go l.drain() // ends when all is written; flush waits for it
	}
	return len(p), nil
}

// hurry has who logs wait no more: the process is to end at once, even if nobody reads its log.
func (l *logWriter) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hurried = true
	l.taken.Broadcast()
}

// flush waits until all that was taken is written, and for a log that nobody reads no longer than patience.
func (l *logWriter) flush(patience time.Duration) {
	l.mu.Lock()
	drained := l.drained
	l.mu.Unlock()
	if drained == nil {
		return
	}
	select {
	case <-drained:
	case <-time.After(patience):
	}
}

func (l *logWriter) drain() {
	for {
		batch := l.take()
		if batch == nil {
			return
		}
		_, _ = l.w.Write(batch) // a log that cannot be written cannot be complained of
		time.Sleep(writePause)
		l.mu.Lock()
		l.spare = batch[:0]
		l.mu.Unlock()
	}
}

// take returns what is to be written, or nil if that is all.
func (l *logWriter) take() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		close(l.drained)
		l.drained = nil
		return nil
	}
	batch := l.pending
	l.pending, l.spare = l.spare, nil
	l.taken.Broadcast()
	return batch
}
