package e2e_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What may happen after a case's bytes have been sent.
const (
	thenEndsSide = "the caller ends its side"
	thenLeaves   = "the caller leaves"
	thenStops    = "bifrost is told to stop"
)

// tunnelLine is what a caller says in a tunnel; the upstream repeats it and ends the tunnel.
const tunnelLine = "ping\n"

// caseTime is for one case; none needs more than a fraction of it.
const caseTime = 20 * time.Second

// sendRaw sends a case's bytes on a connection of its own, and tells the answers and whether the connection ends with them.
func (c *corpus) sendRaw(t *testing.T, one *corpusCase) []string {
	t.Helper()
	conn, err := net.Dial("tcp", c.address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(caseTime)))
	raw := c.bytes(one.sent)
	written := make(chan struct{})
	go func() { // ends with the connection
		_, _ = io.WriteString(conn, raw) // an early answer may end it
		if one.then == thenEndsSide {
			_ = conn.(*net.TCPConn).CloseWrite() // likewise
		}
		close(written)
	}()
	if one.then == thenLeaves {
		return c.leave(t, conn)
	}
	method, _, _ := strings.Cut(raw, " ")
	return c.readAnswers(t, one, conn, written, method)
}

// readAnswers reads as many answers as the case has, and then asks something of the connection's own.
func (c *corpus) readAnswers(t *testing.T, one *corpusCase, conn net.Conn, written <-chan struct{}, method string) []string {
	t.Helper()
	var lines []string
	br := bufio.NewReader(conn)
	for range one.answers() {
		for {
			res, err := http.ReadResponse(br, &http.Request{Method: method})
			if err != nil {
				requireNoTimeout(t, err, "no answer")
				return append(lines, "closed")
			}
			if res.StatusCode == http.StatusSwitchingProtocols {
				c.inTunnel(t, one, conn)
			}
			lines = append(lines, c.answerLines(t, res, br, len(one.replied) > 0)...)
			if res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
				break
			}
		}
	}
	if one.then == thenEndsSide {
		_, err := br.ReadByte()
		require.ErrorIs(t, err, io.EOF, "more than the answers that the case has")
		return lines
	}
	if !usable(t, br, conn, written) {
		lines = append(lines, "closed")
	}
	return lines
}

// inTunnel ends a tunnel that has begun.
func (c *corpus) inTunnel(t *testing.T, one *corpusCase, conn net.Conn) {
	t.Helper()
	if one.then == thenStops {
		require.NoError(t, c.replica.cmd.Process.Signal(syscall.SIGTERM))
		return
	}
	_, _ = io.WriteString(conn, tunnelLine) // reading tells
}

// usable reports whether a connection takes one more request. Its key is none, so that no upstream sees it.
func usable(t *testing.T, br *bufio.Reader, conn net.Conn, written <-chan struct{}) bool {
	t.Helper()
	<-written
	_, _ = io.WriteString(conn, "GET /graph/x HTTP/1.1\r\nHost: x\r\nX-Bifrost-Key: none\r\nX-Request-Id: one-more\r\n\r\n") // reading tells
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		requireNoTimeout(t, err, "neither an answer nor an end")
		return false
	}
	_, _ = io.Copy(io.Discard, res.Body) // complete or not: the connection is left
	require.Equal(t, "one-more", res.Header.Get("X-Request-Id"), "more than the answers that the case has")
	return true
}

func requireNoTimeout(t *testing.T, err error, what string) {
	t.Helper()
	late, ok := errors.AsType[net.Error](err)
	require.False(t, ok && late.Timeout(), what)
}

// leave has the caller go away once the upstream has the request, and tells what the log says of it.
func (c *corpus) leave(t *testing.T, conn net.Conn) []string {
	t.Helper()
	came := c.upstream.await(t, func(rs []*rawRequest) bool { return len(rs) > 0 })[0]
	id := slices.IndexFunc(came.head, func(line string) bool { return strings.HasPrefix(line, "X-Request-Id: ") })
	require.GreaterOrEqual(t, id, 0)
	logged := regexp.MustCompile(`"request_id":"` + strings.TrimPrefix(came.head[id], "X-Request-Id: ") + `".*("status":[0-9]+,"code":"[a-z_]*")`)
	require.NoError(t, conn.Close())
	var found []string
	require.Eventually(t, func() bool {
		found = logged.FindStringSubmatch(c.replica.stderr.String())
		return found != nil
	}, patience, pollTime, "the log says nothing of a caller who left")
	return []string{"log " + found[1]}
}

// answerLines tell an answer: its status and our code, where whole is set its headers and body too.
func (c *corpus) answerLines(t *testing.T, res *http.Response, br *bufio.Reader, whole bool) []string {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	requireNoTimeout(t, err, "an endless answer")
	first := strconv.Itoa(res.StatusCode)
	if code := res.Header.Get("X-Bifrost-Error"); code != "" {
		return []string{first + " " + code}
	}
	lines := []string{first}
	if !whole {
		return lines
	}
	res.Header.Del("Date") // another with every run
	for name, values := range res.Header {
		for _, value := range values {
			lines = append(lines, c.golden(name+": "+value))
		}
	}
	slices.Sort(lines[1:])
	if len(res.TransferEncoding) > 0 {
		lines = append(lines, "Transfer-Encoding: "+strings.Join(res.TransferEncoding, ", "))
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		body, err = io.ReadAll(br)
		requireNoTimeout(t, err, "an endless tunnel")
		err = nil // a tunnel's end is no error of its own
	}
	if len(body) > 0 {
		lines = append(lines, "", escapeLine(string(body)))
	}
	for name := range res.Trailer {
		lines = append(lines, "trailer: "+name)
	}
	if err != nil {
		lines = append(lines, "{cut}")
	}
	return lines
}
