package main

import (
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// counted is a connection that counts how often its read deadline is moved, and its Reads.
type counted struct {
	net.Conn
	moves, reads int
	lazy         lazyRead
}

func (c *counted) Read(p []byte) (int, error) {
	c.reads++
	return c.Conn.Read(p)
}

func (c *counted) SetReadDeadline(t time.Time) error {
	c.moves++
	return c.Conn.SetReadDeadline(t)
}

func (c *counted) read() error {
	_, err := c.lazy.read(c, make([]byte, 1))
	return err
}

func (c *counted) within(d time.Duration) { _ = c.lazy.setReadDeadline(c, time.Now().Add(d)) }
func (c *counted) breakOff()              { _ = c.lazy.setReadDeadline(c, time.Unix(1, 0)) } // as net/http's server does
func (c *counted) clear()                 { _ = c.lazy.setReadDeadline(c, time.Time{}) }

// lazily runs test in fake time with a connection and its peer.
func lazily(t *testing.T, test func(t *testing.T, c *counted, peer net.Conn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		conn, peer := net.Pipe()
		defer func() { _ = conn.Close() }()
		test(t, &counted{Conn: conn}, peer)
	})
}

// send has the peer send a byte after a while.
func send(peer net.Conn, after time.Duration) {
	go func() { // ends with the Read, or with the connection
		time.Sleep(after)
		_, _ = peer.Write([]byte{0})
	}()
}

func TestALazyReadEndsAtItsDeadline(t *testing.T) {
	lazily(t, func(t *testing.T, c *counted, _ net.Conn) {
		for _, d := range []time.Duration{10 * time.Second, time.Minute, time.Second} {
			began := time.Now()
			c.within(d)
			require.ErrorIs(t, c.read(), os.ErrDeadlineExceeded)
			require.Equal(t, d, time.Since(began))
			require.ErrorIs(t, c.read(), os.ErrDeadlineExceeded, "until another deadline is set")
			require.Equal(t, d, time.Since(began))
		}
	})
}

func TestALazyReadOutlivesADeadlineThatWasMovedOrCleared(t *testing.T) {
	for name, move := range map[string]func(*counted){
		"cleared": (*counted).clear,
		"moved":   func(c *counted) { c.within(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			lazily(t, func(t *testing.T, c *counted, peer net.Conn) { // before the Read
				c.within(time.Second)
				send(peer, 0)
				require.NoError(t, c.read())
				move(c)
				send(peer, time.Minute)
				require.NoError(t, c.read())
			})
			lazily(t, func(t *testing.T, c *counted, peer net.Conn) { // during it
				c.within(time.Second)
				time.AfterFunc(time.Second/2, func() { move(c) })
				send(peer, time.Minute)
				require.NoError(t, c.read())
			})
		})
	}
}

// So does net/http's server end its background Read before the next request, and so do Shutdown and Hijack.
func TestADeadlineInThePastEndsALazyReadUnderWay(t *testing.T) {
	lazily(t, func(t *testing.T, c *counted, peer net.Conn) {
		for range 2 {
			began := time.Now()
			time.AfterFunc(time.Second, func() { c.within(-time.Hour) })
			require.ErrorIs(t, c.read(), os.ErrDeadlineExceeded)
			require.Equal(t, time.Second, time.Since(began))
			c.clear()
			send(peer, time.Minute)
			require.NoError(t, c.read())
		}
	})
}

func TestADeadlineThatComesEarlierEndsALazyReadUnderWay(t *testing.T) {
	lazily(t, func(t *testing.T, c *counted, _ net.Conn) {
		began := time.Now()
		c.within(time.Hour)
		time.AfterFunc(time.Second, func() { c.within(time.Second) })
		require.ErrorIs(t, c.read(), os.ErrDeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

// What net/http's server does around a small request used to move the deadline six times.
func TestDeadlinesThatNoReadSeesCostNothing(t *testing.T) {
	lazily(t, func(t *testing.T, c *counted, peer net.Conn) {
		request := func() {
			c.within(2 * time.Minute) // between requests
			send(peer, 0)
			require.NoError(t, c.read()) // the whole request
			c.clear()
			c.within(10 * time.Second) // for its headers, which have been read
			c.clear()
			time.AfterFunc(time.Millisecond, c.breakOff)
			began := time.Now()
			require.ErrorIs(t, c.read(), os.ErrDeadlineExceeded) // in the background, until the answer is written
			require.Equal(t, time.Millisecond, time.Since(began))
			c.clear()
		}
		request()
		c.moves = 0
		for range 100 {
			request()
		}
		require.LessOrEqual(t, c.moves, 2)
		require.Equal(t, 101, c.reads, "no request was under way for long enough to look whether its caller has gone")
	})
}

func TestThatACallerHangsUpIsSeenALittleLater(t *testing.T) {
	for name, after := range map[string]time.Duration{"at once": 0, "soon": hangUpLook / 2, "later": time.Hour} {
		t.Run(name, func(t *testing.T) {
			lazily(t, func(t *testing.T, c *counted, peer net.Conn) {
				began := time.Now()
				time.AfterFunc(after, func() { _ = peer.Close() })
				require.ErrorIs(t, c.read(), io.EOF)
				require.Equal(t, max(after, hangUpLook), time.Since(began))
			})
		})
	}
}

func TestAReadThatWaitsToBeginHeedsADeadline(t *testing.T) {
	lazily(t, func(t *testing.T, c *counted, peer net.Conn) {
		began := time.Now()
		time.AfterFunc(hangUpLook/2, func() { c.within(time.Second) })
		require.ErrorIs(t, c.read(), os.ErrDeadlineExceeded)
		require.Equal(t, hangUpLook/2+time.Second, time.Since(began))
	})
}

func TestAReadOfMoreThanAByteBeginsAtOnce(t *testing.T) {
	lazily(t, func(t *testing.T, c *counted, peer net.Conn) {
		began := time.Now()
		send(peer, 0)
		_, err := c.lazy.read(c, make([]byte, 2))
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
	})
}
