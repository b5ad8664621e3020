package proxy

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestABodyIsKeptUpToItsLimit(t *testing.T) {
	for _, declared := range []int64{-1, 10} {
		for limit, replayable := range map[int64]bool{9: false, 10: true, 11: true, -1: false} {
			b := newReplayBody(iotest.OneByteReader(strings.NewReader("0123456789")), declared, limit)
			first := b.attempt()
			got, err := io.ReadAll(first)
			require.NoError(t, err)
			require.Equal(t, "0123456789", string(got))
			require.Equal(t, replayable, b.replayable())
			_, err = b.nextAttempt()
			require.Equal(t, replayable, err == nil)
			read, atEOF := b.progress()
			require.EqualValues(t, 10, read)
			require.True(t, atEOF)
		}
	}
}

func TestAnAttemptGoesOnWhereTheCopyEnds(t *testing.T) {
	b := newReplayBody(iotest.OneByteReader(strings.NewReader("0123456789")), -1, 4)
	first := b.attempt()
	_, err := io.ReadFull(first, make([]byte, 3))
	require.NoError(t, err)
	require.NoError(t, first.Close())
	_, err = first.Read(make([]byte, 1))
	require.ErrorIs(t, err, errBodyClosed)
	require.True(t, b.replayable())
	got, err := io.ReadAll(b.attempt())
	require.NoError(t, err)
	require.Equal(t, "0123456789", string(got))
	require.False(t, b.replayable())
}

// A read that is under way when its attempt ends still takes bytes off the wire: they belong to the next attempt, even beyond
// the limit.
func TestTheLastReadOfAClosedAttemptIsNotLost(t *testing.T) {
	pr, pw := io.Pipe()
	b := newReplayBody(pr, -1, 4)
	first := b.attempt()
	done := make(chan struct{})
	go func() { // ends with the second write
		defer close(done)
		buf := make([]byte, 8)
		_, _ = io.ReadFull(first, buf[:4])
		_, _ = first.Read(buf)
	}()
	_, err := io.WriteString(pw, "abcd")
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the second read has begun
		if b.reading.TryLock() {
			b.reading.Unlock()
			return false
		}
		read, _ := b.progress()
		return read == 4
	}, 5e9, 1e6)
	require.NoError(t, first.Close())
	require.True(t, b.replayable())
	second := b.attempt()
	_, err = io.WriteString(pw, "efgh")
	require.NoError(t, err)
	<-done
	require.NoError(t, pw.Close())
	got, err := io.ReadAll(second)
	require.NoError(t, err)
	require.Equal(t, "abcdefgh", string(got))
}

func TestACallersErrorIsToldFromAnUpstreams(t *testing.T) {
	b := newReplayBody(iotest.ErrReader(io.ErrUnexpectedEOF), -1, 4)
	_, err := b.attempt().Read(make([]byte, 1))
	var body *bodyError
	require.ErrorAs(t, err, &body)
	require.False(t, b.replayable())
}
