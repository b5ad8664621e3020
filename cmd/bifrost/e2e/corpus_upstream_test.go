package e2e_test

import (
	"bufio"
	"io"
	"net"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What an upstream's answer may hold beside its bytes.
const (
	answerPlain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	answerClose = "{close}" // the connection ends here
	answerHold  = "{hold}"  // nothing comes before the next case
)

// rawUpstream is an upstream that reads no more of HTTP/1 than where a request ends, so that what it notes is what was sent.
type rawUpstream struct {
	listener net.Listener

	mu       sync.Mutex        // guards the fields below
	requests []*rawRequest     // since the last take
	answer   string            // of the present case
	over     chan struct{}     // closed when the present case is over
	changed  chan struct{}     // closed and replaced with every change of requests
	open     map[net.Conn]bool // nil: closed
}

// rawRequest is a request as it came.
type rawRequest struct {
	head  []string // lines without their ends
	body  string   // without its chunks' frames
	ended bool     // no more of it will come
	cut   bool     // the connection ended within it
}

func newRawUpstream(t *testing.T) *rawUpstream {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u := &rawUpstream{listener: listener, answer: answerPlain, over: make(chan struct{}), changed: make(chan struct{}), open: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { u.serve(conn) })
		}
	})
	t.Cleanup(func() {
		u.close()
		serving.Wait()
	})
	return u
}

func (u *rawUpstream) address() string { return u.listener.Addr().String() }

func (u *rawUpstream) close() {
	_ = u.listener.Close() // once
	u.mu.Lock()
	defer u.mu.Unlock()
	for conn := range u.open {
		_ = conn.Close() // its reader ends
	}
	u.open = nil
	close(u.over)
}

// serve reads the requests of one connection.
func (u *rawUpstream) serve(conn net.Conn) {
	defer conn.Close()
	u.mu.Lock()
	if u.open == nil {
		u.mu.Unlock()
		return
	}
	u.open[conn] = true
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		delete(u.open, conn)
		u.mu.Unlock()
	}()
	br := bufio.NewReader(conn)
	for {
		head, err := readHead(br)
		if len(head) == 0 {
			return
		}
		q := &rawRequest{head: head}
		u.change(func() { u.requests = append(u.requests, q) })
		var body string
		if err == nil {
			body, err = readBody(br, conn, q)
		}
		answer, over := u.answerTo(q)
		if err == nil && strings.HasPrefix(answer, "HTTP/1.1 101 ") {
			_, _ = io.WriteString(conn, answer) // the reader notices
			body, _ = br.ReadString('\n')       // what follows is the tunnel's: one line, which comes back, or its end
			answer = body + answerClose
		}
		u.change(func() { q.body, q.ended, q.cut = body, true, err != nil })
		if err != nil || !replyRaw(conn, answer, over) {
			return
		}
	}
}

// readHead reads to the empty line. Lines end as they end; \r before \n goes.
func readHead(br *bufio.Reader) (head []string, err error) {
	for {
		line, err := br.ReadString('\n')
		if line == "\r\n" {
			return head, nil
		}
		if line != "" {
			head = append(head, strings.TrimSuffix(line, "\r\n"))
		}
		if err != nil {
			return head, err
		}
	}
}

// readBody reads what a request says that it has, with what follows the last chunk.
func readBody(br *bufio.Reader, conn io.Writer, q *rawRequest) (string, error) {
	if q.value("Expect") != "" {
		_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n") // the reader notices
	}
	if q.value("Transfer-Encoding") != "" {
		body, err := io.ReadAll(httputil.NewChunkedReader(br))
		if err != nil {
			return string(body), err
		}
		trailer, err := readHead(br)
		for _, line := range trailer {
			body = append(body, "\r\ntrailer: "+line...)
		}
		return string(body), err
	}
	n, _ := strconv.ParseInt(q.value("Content-Length"), 10, 64) // 0: none
	body, err := io.ReadAll(io.LimitReader(br, n))
	if err == nil && int64(len(body)) < n {
		err = io.ErrUnexpectedEOF
	}
	return string(body), err
}

func (u *rawUpstream) answerTo(q *rawRequest) (answer string, over <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if q.isSentinel() {
		return answerPlain, u.over
	}
	return u.answer, u.over
}

// replyRaw answers, and reports whether the connection goes on.
func replyRaw(conn net.Conn, answer string, over <-chan struct{}) bool {
	answer, ends := strings.CutSuffix(answer, answerClose)
	answer, holds := strings.CutSuffix(answer, answerHold)
	if _, err := io.WriteString(conn, answer); err != nil {
		return false
	}
	if holds {
		<-over
	}
	return !ends && !holds
}

// change does what changes requests, and wakes who waits for that.
func (u *rawUpstream) change(do func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	do()
	close(u.changed)
	u.changed = make(chan struct{})
}

// begin makes ready for a case.
func (u *rawUpstream) begin(answer string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.over)
	u.over, u.answer, u.requests = make(chan struct{}), answer, nil
}

// await waits until enough says so of the requests since begin, and returns them. It is called with the mutex held.
func (u *rawUpstream) await(t *testing.T, enough func([]*rawRequest) bool) []*rawRequest {
	t.Helper()
	late := time.After(patience)
	for {
		u.mu.Lock()
		requests, changed := slices.Clone(u.requests), u.changed
		done := enough(requests)
		u.mu.Unlock()
		if done {
			return requests
		}
		select {
		case <-changed:
		case <-late:
			require.Fail(t, "the upstream still waits for a request, or for one's end")
		}
	}
}

func (q *rawRequest) isSentinel() bool { return strings.HasPrefix(q.head[0], "GET "+sentinelPath+" ") }

func (q *rawRequest) value(name string) string {
	for _, line := range q.head[1:] {
		if key, value, _ := strings.Cut(line, ":"); strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// lines are the request line, the headers in the order of their names, and the body.
func (q *rawRequest) lines() []string {
	var lines []string
	for _, line := range q.head {
		lines = append(lines, escapeLine(line))
	}
	slices.SortStableFunc(lines[1:], func(a, b string) int {
		nameA, _, _ := strings.Cut(a, ":")
		nameB, _, _ := strings.Cut(b, ":")
		return strings.Compare(nameA, nameB)
	})
	if q.body != "" {
		lines = append(lines, "", escapeLine(q.body))
	}
	return lines
}
