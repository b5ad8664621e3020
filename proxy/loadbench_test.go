package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// load is what one row of BenchmarkAgainstBare puts on the two proxies.
type load struct {
	size     int // bytes of an answer
	orgs     int
	conns    int    // callers at a time, each with a connection
	upstream string // its protocol: see upstreamOf
	log      bool
}

var loads = []load{
	{size: 200, orgs: 1, conns: 1, upstream: "plain"},
	{size: 200, orgs: 1, conns: 64, upstream: "plain"},
	{size: 200, orgs: 1, conns: 64, upstream: "plain", log: true},
	{size: 200, orgs: 10_000, conns: 1, upstream: "plain"},
	{size: 200, orgs: 10_000, conns: 64, upstream: "plain"},
	{size: 200, orgs: 10_000, conns: 64, upstream: "plain", log: true},
	{size: 10 << 10, orgs: 1, conns: 1, upstream: "plain"},
	{size: 10 << 10, orgs: 10_000, conns: 64, upstream: "plain", log: true},
	{size: 1 << 20, orgs: 1, conns: 1, upstream: "plain"},
	{size: 1 << 20, orgs: 1, conns: 64, upstream: "plain"},
	{size: 200, orgs: 1, conns: 64, upstream: "tls"},
	{size: 200, orgs: 1, conns: 64, upstream: "h2"},
	{size: 10 << 10, orgs: 10_000, conns: 64, upstream: "h2", log: true},
}

func (l load) String() string {
	size := fmt.Sprint(l.size, "B")
	switch {
	case l.size >= 1<<20:
		size = fmt.Sprint(l.size>>20, "MiB")
	case l.size >= 1<<10:
		size = fmt.Sprint(l.size>>10, "KiB")
	}
	return fmt.Sprintf("size=%s/orgs=%d/c=%d/upstream=%s/log=%s", size, l.orgs, l.conns, l.upstream, onOff(l.log))
}

// BenchmarkAgainstBare puts the proxy and bare httputil behind a listener each and loads them in turns over loopback.
// x-bare-time is the ratio of the wall time per request. x-bare-cpu is that of the CPU time, user and system, of the whole
// process: callers, both net/http servers and the upstream are in it on both sides, so that it is nearer to 1 than the ratio of
// two proxies that run alone.
func BenchmarkAgainstBare(b *testing.B) {
	for _, l := range loads {
		b.Run(l.String(), func(b *testing.B) {
			answer := make([]byte, l.size)
			upstream := upstreamOf(b, l.upstream, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
				_, _ = w.Write(answer)
			}, nil)
			roots := rootsOf(upstream)
			ours := newCrowd(b, warmProxy(b, upstream.URL, warm{orgs: l.orgs, log: l.log, roots: roots}), l)
			bare := newCrowd(b, bareProxy(b, upstream.URL, roots), l)
			turn := max(1, min(1000, 64<<20/(l.size+4096))/l.conns) // requests of each caller: about a tenth of a second
			ours.ask(b, turn)
			bare.ask(b, turn)
			*ours, *bare = crowd{callers: ours.callers}, crowd{callers: bare.callers}
			for turns := 0; b.Loop(); turns++ {
				for i := range 2 {
					[]*crowd{ours, bare}[(i+turns)%2].ask(b, turn)
				}
			}
			b.ReportMetric(float64(ours.wall)/float64(bare.wall), "x-bare-time")
			b.ReportMetric(float64(ours.cpu)/float64(bare.cpu), "x-bare-cpu")
			b.ReportMetric(0, "ns/op") // of a turn of both: it says nothing
		})
	}
}

// crowd is callers of one proxy, and what their requests have taken.
type crowd struct {
	callers   []*rawCaller
	wall, cpu time.Duration
}

func newCrowd(b *testing.B, h http.Handler, l load) *crowd {
	front := httptest.NewServer(h)
	b.Cleanup(front.Close)
	c := &crowd{}
	for i := range l.conns {
		conn, err := net.Dial("tcp", front.Listener.Addr().String())
		require.NoError(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		c.callers = append(c.callers, newRawCaller(conn, l, i))
	}
	return c
}

// ask has each caller send n requests, one after the other, all callers at once.
func (c *crowd) ask(b *testing.B, n int) {
	cpu, began := cpuTime(b), time.Now()
	var all sync.WaitGroup
	for _, one := range c.callers {
		all.Go(func() {
			for range n {
				if err := one.ask(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	c.wall += time.Since(began)
	c.cpu += cpuTime(b) - cpu
}

// cpuTime is what this process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// rawCaller is a caller that costs little itself: its requests are ready as bytes, and of answers it reads the length alone.
type rawCaller struct {
	conn     net.Conn
	in       *bufio.Reader
	size     int
	requests [][]byte // of the orgs that it asks for in turn
	next     int
}

// newRawCaller is caller number i; together they ask for all orgs.
func newRawCaller(conn net.Conn, l load, i int) *rawCaller {
	c := &rawCaller{conn: conn, in: bufio.NewReaderSize(conn, 32<<10), size: l.size}
	for org := i % l.orgs; org < l.orgs; org += l.conns {
		c.requests = append(c.requests, fmt.Appendf(nil, "GET /graph/v1.0/users?$top=5 HTTP/1.1\r\nHost: bifrost.test\r\nAuthorization: Bearer %s\r\n"+
			"X-Org-ID: %s\r\nAccept: application/json\r\nUser-Agent: workflows/1.0\r\n\r\n", callerKey, warmOrg(org)))
	}
	return c
}

func (c *rawCaller) ask() error {
	if _, err := c.conn.Write(c.requests[c.next]); err != nil {
		return err
	}
	c.next = (c.next + 1) % len(c.requests)
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %s", status)
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == len("\r\n") {
			break
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	if length != c.size {
		return fmt.Errorf("an answer of %d bytes instead of %d", length, c.size)
	}
	_, err = c.in.Discard(length)
	return err
}
