package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// slowLog takes a write only when it is let.
type slowLog struct {
	let    chan struct{}
	mu     sync.Mutex // guards what follows
	text   bytes.Buffer
	writes int
}

func (s *slowLog) Write(p []byte) (int, error) {
	<-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	return s.text.Write(p)
}

func TestLogLinesAreWrittenWholeAndInOrder(t *testing.T) {
	s := &slowLog{let: make(chan struct{})}
	close(s.let)
	l := newLogWriter(s)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				_, _ = fmt.Fprintf(l, "%d %d\n", g, i) // one Write
			}
		})
	}
	wg.Wait()
	l.flush(time.Minute)
	next := map[int]int{}
	for line := range strings.Lines(s.text.String()) {
		var g, i int
		_, err := fmt.Sscanf(line, "%d %d\n", &g, &i)
		require.NoError(t, err, "%q", line)
		require.Equal(t, next[g], i)
		next[g]++
	}
	require.Len(t, next, 8)
}

func TestLogLinesThatComeDuringAWriteShareTheNext(t *testing.T) {
	s := &slowLog{let: make(chan struct{})}
	l := newLogWriter(s)
	_, _ = l.Write([]byte("first\n"))
	s.let <- struct{}{} // and the next write waits
	for range 100 {
		_, _ = l.Write([]byte("line\n"))
	}
	close(s.let)
	l.flush(time.Minute)
	require.LessOrEqual(t, s.writes, 3, "the first, at most one that began with a few, and one with all others")
	require.Equal(t, 101, strings.Count(s.text.String(), "\n"))
}

// A log that nobody reads must not take all memory.
func TestWhoLogsWaitsForALogThatIsNotRead(t *testing.T) {
	s := &slowLog{let: make(chan struct{})}
	l := newLogWriter(s)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const lines = 4 * maxUnwritten / 1024
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range lines {
			_, _ = l.Write(line)
		}
	}()
	for range 2 { // each write takes about maxUnwritten at most
		select {
		case s.let <- struct{}{}:
		case <-done:
			t.Fatal("nobody waited")
		}
	}
	close(s.let)
	<-done
	l.flush(time.Minute)
	require.Equal(t, lines, strings.Count(s.text.String(), "\n"))
}

func TestTheEndDoesNotWaitForALogThatIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowLog{let: make(chan struct{})}
		l := newLogWriter(s)
		l.flush(time.Minute) // there is nothing
		_, _ = l.Write([]byte("line\n"))
		began := time.Now()
		l.flush(flushPatience)
		require.Equal(t, flushPatience, time.Since(began))
		close(s.let)
		l.flush(flushPatience)
		require.Equal(t, "line\n", s.text.String())
	})
}

// A second signal used to end nothing while the log was stuck: the process waited to tell of it.
func TestTheEndIsToldToALogThatIsStuckWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slowLog{let: make(chan struct{})}
		l := newLogWriter(s)
		_, _ = l.Write([]byte("first\n"))
		synctest.Wait() // it is under way, and stuck
		_, _ = l.Write(make([]byte, maxUnwritten+1))
		waiting := make(chan struct{})
		go func() {
			defer close(waiting)
			_, _ = l.Write([]byte("waits\n"))
		}()
		synctest.Wait()
		l.hurry()
		<-waiting
		_, _ = l.Write([]byte("the end\n"))
		l.flush(flushPatience)
		close(s.let)
		l.flush(flushPatience)
	})
}
