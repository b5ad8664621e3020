package main

import (
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// looks is how many times within its limit a connection that takes nothing is looked at.
const looks = 4

// steady is a listener whose connections end when the peer takes nothing of what it is sent for longer than limit. A peer that
// takes little at a time keeps its connection, however long the whole lasts: the limit is on standstill, not on time. Tunnels
// are under it too, and where there is TLS it is underneath.
type steady struct {
	net.Listener
	limit atomic.Int64 // a time.Duration, which a reload may change; 0: none
}

// Accept implements [net.Listener].
func (s *steady) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &steadyConn{Conn: conn, limit: &s.limit}, nil
}

// taken is the until of a connection whose write deadline its user has set: none of ours until that is cleared.
const taken = math.MaxInt64

// steadyConn is one connection of steady. A write deadline is set while nothing is written too, and may pass then: it is moved
// before a Write that it could end, and not with every Write, which would cost more than the clock.
type steadyConn struct {
	net.Conn // its ReadFrom is hidden: what it sends would not be seen. Read deadlines are lazy
	limit    *atomic.Int64
	until    atomic.Int64 // the write deadline, Unix nanoseconds; 0: none
	mu       sync.Mutex   // held while until and the deadline change
	reads    lazyRead
}

// Read implements [net.Conn].
func (c *steadyConn) Read(p []byte) (int, error) { return c.reads.read(c.Conn, p) }

// SetReadDeadline implements [net.Conn].
func (c *steadyConn) SetReadDeadline(t time.Time) error { return c.reads.setReadDeadline(c.Conn, t) }

// Write implements [net.Conn]. It fails with os.ErrDeadlineExceeded after the limit, and at most a half of it later. It tries again
// at every look, because the system wakes a Write only when a third of the socket's buffer is free: that can be a megabyte, which a
// slow reader takes many minutes to read, while a new Write goes on wherever there is room at all.
func (c *steadyConn) Write(p []byte) (int, error) {
	look := c.limit.Load() / looks
	if look <= 0 {
		c.clear()
		return c.Conn.Write(p)
	}
	if now := time.Now().UnixNano(); c.until.Load()-now < look {
		c.extend(now + 2*look)
	}
	n, err := c.Conn.Write(p)
	for still := 0; still < looks && errors.Is(err, os.ErrDeadlineExceeded) && c.extend(time.Now().UnixNano()+look); {
		var more int
		more, err = c.Conn.Write(p[n:])
		n += more
		if still++; more > 0 {
			still = 0
		}
	}
	return n, err
}

// extend moves the write deadline, unless it is taken.
func (c *steadyConn) extend(until int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until.Load() == taken {
		return false
	}
	c.until.Store(until)
	return c.Conn.SetWriteDeadline(time.Unix(0, until)) == nil
}

// clear takes a write deadline of ours away, which is there if there was a limit before.
func (c *steadyConn) clear() {
	if until := c.until.Load(); until == 0 || until == taken {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until.Load() != taken {
		c.until.Store(0)
		_ = c.Conn.SetWriteDeadline(time.Time{}) // of a closed connection, at worst
	}
}

// SetWriteDeadline implements [net.Conn]. A deadline stands in place of the limit until it is cleared. To clear none is
// nothing, which spares net/http's server the cost of doing so after every request.
func (c *steadyConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !t.IsZero():
		c.until.Store(taken)
	case c.until.Load() == taken:
		c.until.Store(0)
	default:
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (c *steadyConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite lets net/http's server end an answer to a caller that still sends, without a reset that would destroy it.
func (c *steadyConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
