package e2e_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// What one idle stream of events may cost the process: resident, of that in use in the heap, and after its end: the runtime keeps
// its goroutines' descriptors for the next.
const (
	streamBound = 64 << 10
	streamHeap  = 40 << 10 // the copy's buffer would be 32 more
	streamLeft  = 4 << 10
)

// eventServer answers every request with one event, and sends one more to all of them when it is told to.
type eventServer struct {
	net.Listener
	more chan struct{} // closed: send the second event
	open sync.WaitGroup
}

func newEventServer(t *testing.T) *eventServer {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &eventServer{Listener: socket, more: make(chan struct{})}
	go func() { // ends with the listener
		for {
			conn, err := s.Accept()
			if err != nil {
				return
			}
			s.open.Go(func() { s.serve(conn) })
		}
	}()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// serve ends when the proxy has closed the connection.
func (s *eventServer) serve(conn net.Conn) {
	defer conn.Close()
	if readUntil(conn, "\r\n\r\n") != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"9\r\ndata: 1\n\n\r\n") // the proxy may have gone
	<-s.more
	_, _ = io.WriteString(conn, "9\r\ndata: 2\n\n\r\n")
	_, _ = io.Copy(io.Discard, conn)
}

// readUntil reads to the mark, with as little memory as it can.
func readUntil(conn net.Conn, mark string) error {
	var seen []byte
	var block [512]byte
	for !bytes.Contains(seen, []byte(mark)) {
		n, err := conn.Read(block[:])
		if err != nil {
			return err
		}
		seen = append(seen, block[:n]...)
	}
	return nil
}

// TestIdleStreamsAreCheap opens streams of events that are silent after the first one. In the end each gets another event, and
// nothing is left when their readers have gone.
func TestIdleStreamsAreCheap(t *testing.T) {
	n := 500
	if *soak {
		n = 10_000
	}
	var limit syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if most := int(limit.Max-min(limit.Max, 200)) / 2; n > most {
		t.Logf("%d streams instead of %d: each is two files of the %d that a process may open here", most, n, limit.Max)
		n = most
	}
	events := newEventServer(t)
	r := newQuietSite(t, "http://"+events.Addr().String())
	base, _ := r.resident()
	kept := r.heap()
	goroutines := r.metric("go_goroutines")

	streams := r.openStreams(n)
	require.EqualValues(t, n, r.metric("bifrost_requests_in_flight"))
	now, peak := r.resident()
	t.Logf("%d idle streams: %.1f MiB, at most %.1f MiB, %.1f KiB for each; heap %.1f KiB, stacks %.1f KiB for each; %v goroutines", n, mib(now), mib(peak),
		float64(peak-base)/float64(n)/1024, r.metric("go_memstats_heap_inuse_bytes")/float64(n)/1024, r.metric("go_memstats_stack_inuse_bytes")/float64(n)/1024,
		r.metric("go_goroutines"))
	require.LessOrEqual(t, peak-base, int64(n*streamBound)+8<<20)

	used := (r.heap() - kept) / float64(n)
	t.Logf("of that heap %.1f KiB for each is in use", used/1024)
	require.LessOrEqual(t, used, float64(streamHeap))
	close(events.more)
	for _, conn := range streams {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		require.NoError(t, readUntil(conn, "data: 2\n\n"))
	}
	for _, conn := range streams {
		require.NoError(t, conn.Close())
	}
	require.Eventually(t, func() bool {
		return r.metric("bifrost_requests_in_flight") == 0 && r.metric("go_goroutines") <= goroutines+10
	}, patience, pollTime, "something is left")
	events.open.Wait()
	_ = r.heap() // pools let go of what they hold at the second collection
	left := r.heap() - kept
	t.Logf("afterwards %.1f KiB for each are left in the heap", left/float64(n)/1024)
	require.LessOrEqual(t, left, float64(n*streamLeft))
}

// openStreams opens that many and waits for the first event of each.
func (r *replica) openStreams(n int) []net.Conn {
	r.t.Helper()
	streams := make([]net.Conn, n)
	address := strings.TrimPrefix(r.proxy, "http://")
	var group errgroup.Group
	group.SetLimit(32)
	for i := range streams {
		group.Go(func() error {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			streams[i] = conn
			_, err = io.WriteString(conn, "GET /graph/events HTTP/1.1\r\nHost: "+address+"\r\nAuthorization: Bearer "+callerKey+
				"\r\nX-Org-ID: acme\r\nAccept: text/event-stream\r\n\r\n")
			if err != nil {
				return err
			}
			return readUntil(conn, "data: 1\n\n")
		})
	}
	r.t.Cleanup(func() {
		for _, conn := range streams {
			if conn != nil {
				_ = conn.Close()
			}
		}
	})
	require.NoError(r.t, group.Wait())
	return streams
}
