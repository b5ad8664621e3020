package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// earlyOrgs is how many orgs send the requests, each with a token of its own.
const earlyOrgs = 50

// errand is one request: what is sent, how the upstream treats it, and what must come back.
type errand struct {
	number  uint64
	org     string
	body    int  // bytes; of a GET 0
	post    bool // GET otherwise
	chunked bool // the body

	reads         string // before it answers: none of the body, half, all
	answer        int    // bytes
	answerChunked bool
	closes        bool // the upstream, after the answer
}

// newErrand draws one. Long bodies and answers are as rare as they must be for a million to end the same day.
func newErrand(number uint64) errand {
	pick := func(n int) int { return rand.IntN(n) }
	e := errand{
		number: number, org: fmt.Sprint("org-", pick(earlyOrgs)), post: pick(10) < 6, chunked: pick(2) == 0,
		reads:  []string{"none", "half", "all"}[pick(3)],
		answer: []int{200, 200, 200, 4 << 10, 4 << 10, 4 << 10, 9000, 64 << 10}[pick(8)], answerChunked: pick(3) == 0, closes: pick(20) == 0,
	}
	if e.post {
		e.body = []int{0, 100, 100, 100, 100, 20 << 10, 20 << 10, 20 << 10, 20 << 10, 300 << 10}[pick(10)]
	}
	return e
}

// path tells the upstream what to do.
func (e errand) path() string {
	return fmt.Sprintf("/%d/%s/%d/%t/%t/%d", e.number, e.reads, e.answer, e.answerChunked, e.closes, e.body)
}

// text is the answer that is wanted: nobody else's has the same bytes.
func text(number, user string, size int) []byte {
	line := []byte(number + " is " + user + "'s. ")
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

// request makes the request that e is through r.
func (e errand) request(r *replica, bodies []byte) *http.Request {
	req := r.proxied(e.org, "/graph"+e.path())
	if e.post {
		req.Method = http.MethodPost
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(bodies[:e.body])), int64(e.body)
		if e.chunked {
			req.ContentLength = -1
		}
	}
	return req
}

// earlyUpstream answers when it is told to, whatever it has of the request's body, in bytes of its own making.
type earlyUpstream struct {
	net.Listener
	idp *authflowtest.Provider
}

func (u *earlyUpstream) run() {
	for {
		conn, err := u.Accept()
		if err != nil {
			return
		}
		go u.serve(conn) // ends with the connection
	}
}

func (u *earlyUpstream) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		part := strings.Split(req.URL.Path, "/") // "", "api", number, reads, answer, chunked, closes, body
		if len(part) != 8 {
			return
		}
		switch part[3] {
		case "half":
			_, _ = io.CopyN(io.Discard, req.Body, max(req.ContentLength, 20<<10)/2) // a shorter one has ended
		case "all":
			if n, _ := io.Copy(io.Discard, req.Body); strconv.FormatInt(n, 10) != part[7] {
				return // a body cut short is a failure
			}
		}
		token, _ := u.idp.Lookup(strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "))
		size, _ := strconv.Atoi(part[4])
		if _, err := conn.Write(rawAnswer(text(part[2], token.User, size), part[5] == "true", part[6] == "true")); err != nil {
			return
		}
		if part[6] == "true" {
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, in) // a close with bytes unread would destroy the answer
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
	}
}

func rawAnswer(body []byte, chunked, closes bool) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
	if closes {
		b.WriteString("Connection: close\r\n")
	}
	if !chunked {
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(body))
		b.Write(body)
		return b.Bytes()
	}
	b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	w := httputil.NewChunkedWriter(&b)
	_, _ = w.Write(body[:len(body)/2]) // into memory
	_, _ = w.Write(body[len(body)/2:])
	_ = w.Close()
	b.WriteString("\r\n")
	return b.Bytes()
}

// TestAnswersAreWholeHoweverEarlyTheyCome sends a great many requests to an upstream that answers without having read them, half
// read or read. A stock httputil.ReverseProxy cuts a few such answers in a thousand (golang/go#40747); here every one must be
// whole, right, and its own org's, and no connection may break.
func TestAnswersAreWholeHoweverEarlyTheyCome(t *testing.T) {
	requests := uint64(20_000)
	if *soak {
		requests = 1_000_000
	}
	idp := newProvider(t, authflowtest.Config{Lifetime: 12 * time.Hour})
	s := newSite(t, idp)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	go (&earlyUpstream{socket, idp}).run() // ends with the socket
	s.replace("upstream: "+idp.BaseURL+"/api", "upstream: http://"+socket.Addr().String()+"/api")
	s.yaml += "log: {requests: false}\n"
	r := s.start()
	for i := range earlyOrgs {
		r.adopt(fmt.Sprint("org-", i))
	}

	bodies := bytes.Repeat([]byte("body "), 60<<10)
	var next, posts, failures atomic.Uint64
	var workers sync.WaitGroup
	began := time.Now()
	for range 32 {
		workers.Go(func() {
			for {
				e := newErrand(next.Add(1))
				if e.number > requests {
					return
				}
				if e.post {
					posts.Add(1)
				}
				if err := r.run(e, bodies); err != nil && failures.Add(1) <= 20 {
					t.Errorf("%+v: %v", e, err)
				}
			}
		})
	}
	workers.Wait()
	took := time.Since(began)
	t.Logf("%d requests in %v, %.0f in a second; %d POSTs; %d failures", requests, took.Round(time.Millisecond), float64(requests)/took.Seconds(), posts.Load(), failures.Load())
	require.Zero(t, failures.Load())
	require.Zero(t, r.metric("bifrost_request_errors_total"))
	require.EqualValues(t, requests, r.metric("bifrost_requests_total", `code="200"`, `origin="upstream"`))
	require.Eventually(t, func() bool { return r.metric("bifrost_requests_in_flight") == 0 }, patience, pollTime)
}

// run sends one and says what is wrong with its answer.
func (r *replica) run(e errand, bodies []byte) error {
	ans, err := r.try(e.request(r, bodies))
	want := text(strconv.FormatUint(e.number, 10), e.org, e.answer)
	switch {
	case err != nil:
		return err
	case ans.Status != http.StatusOK:
		return fmt.Errorf("%d %s", ans.Status, ans.Header.Get("X-Bifrost-Error"))
	case ans.Body != string(want):
		return fmt.Errorf("%d bytes, beginning %.60q", len(ans.Body), ans.Body)
	}
	return nil
}
