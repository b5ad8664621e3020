package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

const (
	shortIdle = 300 * time.Millisecond
	trickle   = shortIdle / 6 // between two signs of life
	longTime  = 4 * shortIdle // of a transfer that is slow but honest
)

// impatient has the proxy wait for nobody longer than shortIdle.
func impatient() change {
	return onConfig(func(c *Config) { c.BodyIdle, c.WriteIdle = shortIdle, shortIdle })
}

// slowly calls fn at short intervals for longTime.
func slowly(fn func()) {
	tick := time.NewTicker(trickle)
	defer tick.Stop()
	for end := time.Now().Add(longTime); time.Now().Before(end); {
		fn()
		<-tick.C
	}
}

// requireNobody waits until no request is in flight.
func (b *bench) requireNobody(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return testutil.ToFloat64(b.proxy.metrics.inFlight) == 0 }, 5*time.Second, time.Millisecond)
}

func TestWhoWaitsTooLongIsCutAndWhoTricklesIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		waits, between time.Duration
		cut            bool
	}{
		"a wait shorter than the limit":          {59 * time.Second, 0, false},
		"a wait longer than the limit":           {61 * time.Second, 0, true},
		"time between two waits does not count":  {59 * time.Second, time.Hour, false},
		"a wait that begins long after the last": {61 * time.Second, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cut := false
				i := &idle{limit: time.Minute, cut: func() { cut = true }}
				for range 5 {
					i.begin()
					time.Sleep(c.waits)
					i.end()
					time.Sleep(c.between)
				}
				require.Equal(t, c.cut, cut)
				require.Equal(t, c.cut, i.stop())
			})
		})
	}
}

func TestNobodyIsCutAfterTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &idle{limit: time.Minute, cut: func() { t.Error("cut") }}
		i.begin()
		require.False(t, i.stop())
		i.begin() // a transport's last read
		time.Sleep(time.Hour)
	})
}

// readsAll is an upstream that tells how its reading of a body ended.
func readsAll(ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		ended <- err
		_, _ = fmt.Fprint(w, n) // the proxy may have gone
	}
}

func TestACallerThatSendsNothingMoreIsLetGo(t *testing.T) {
	for _, body := range []string{"Content-Length: 1000\r\n\r\nfirst", "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"} {
		ended := make(chan error, 1)
		b := start(t, readsAll(ended), impatient())
		conn, answers := b.dialed(t)
		began := time.Now()
		_, err := io.WriteString(conn, strings.TrimSuffix(line("POST", "/graph/x"), "\r\n")+body)
		require.NoError(t, err)
		rest, err := io.ReadAll(answers)
		require.NoError(t, err, "the connection has not been closed")
		require.Empty(t, rest)
		require.GreaterOrEqual(t, time.Since(began), shortIdle)
		require.Error(t, <-ended, "the upstream waits on")
		event := b.events(t, 1)[0]
		require.Equal(t, "client_gone", event["code"])
		require.Equal(t, 499.0, event["status"])
		b.requireNobody(t)
	}
}

// A caller without a key could hold its connection for ever by a body that it announced and never sent, and was not even told.
func TestARefusedCallerThatSendsNothingMoreIsAnswered(t *testing.T) {
	t.Parallel() // it takes drainTime
	b := start(t, nil)
	conn, answers := b.dialed(t)
	_, err := io.WriteString(conn, "POST /graph/x HTTP/1.1\r\nHost: bifrost\r\nContent-Length: 1000\r\n\r\nfirst")
	require.NoError(t, err)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err, "the answer waits for the body")
	require.Equal(t, 401, res.StatusCode)
	_, err = io.ReadAll(answers)
	require.NoError(t, err, "the connection has not been closed")
}

func TestARefusedBodyThatArrivesLeavesItsConnectionUsable(t *testing.T) {
	b := start(t, nil)
	conn, answers := b.dialed(t)
	for range 2 {
		_, err := io.WriteString(conn, "POST /graph/x HTTP/1.1\r\nHost: bifrost\r\nContent-Length: 5\r\n\r\nwhole")
		require.NoError(t, err)
		res, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, 401, res.StatusCode)
		_, err = io.ReadAll(res.Body)
		require.NoError(t, err)
	}
}

func TestAStreamThatSendsNothingMoreIsLetGoAlone(t *testing.T) {
	ended := make(chan error, 2)
	b := start(t, readsAll(ended), impatient())
	b.overHTTP2(t)
	body, send := io.Pipe()
	go func() { _, _ = io.WriteString(send, "first") }() // and nothing more; the client closes the body
	r := b.request(t, "POST", "/graph/x", "x")
	r.Body, r.ContentLength = body, -1
	_, err := b.front.Client().Transport.RoundTrip(r)
	require.Error(t, err)
	require.Error(t, <-ended, "the upstream waits on")
	require.Equal(t, "client_gone", b.events(t, 1)[0]["code"])
	b.requireNobody(t)
}

func TestACallerThatSendsLittleAtATimeIsNotCut(t *testing.T) {
	for _, overHTTP2 := range []bool{false, true} {
		ended := make(chan error, 1)
		b := start(t, readsAll(ended), impatient())
		if overHTTP2 {
			b.overHTTP2(t)
		}
		body, send := io.Pipe()
		sent := 0
		go func() { // ends with the body
			slowly(func() {
				n, _ := io.WriteString(send, "x") // what is missing shows in the answer
				sent += n
			})
			_ = send.Close()
		}()
		r := b.request(t, "POST", "/graph/x", "x")
		r.Body, r.ContentLength = body, -1
		res, got := b.do(t, r)
		require.NoError(t, <-ended)
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, fmt.Sprint(sent), got)
	}
}

// The caller has sent all that it could: the time is the upstream's.
func TestAnUpstreamThatReadsLateCostsTheCallerNothing(t *testing.T) {
	const size = 32 << 20 // more than sockets and windows hold
	for _, overHTTP2 := range []bool{false, true} {
		b := start(t, func(w http.ResponseWriter, r *http.Request) {
			<-time.After(2 * shortIdle)
			n, _ := io.Copy(io.Discard, r.Body) // what is missing shows in the answer
			_, _ = fmt.Fprint(w, n)
		}, impatient())
		if overHTTP2 {
			b.overHTTP2(t)
		}
		_, got := b.do(t, b.request(t, "POST", "/graph/x", strings.Repeat("x", size)))
		require.Equal(t, fmt.Sprint(size), got)
	}
}

// A caller may wait for the answer's first lines before it sends more.
func TestAfterTheAnswerHasBegunTheBodyMayPause(t *testing.T) {
	b := start(t, nil, impatient(), answersAtOnce(t, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"))
	conn, answers := b.dialed(t)
	_, err := io.WriteString(conn, line("POST", "/graph/x", "Transfer-Encoding: chunked")+"5\r\nfirst\r\n")
	require.NoError(t, err)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	events := bufio.NewReader(res.Body)
	_, err = events.ReadString('\n')
	require.NoError(t, err)
	_, _ = events.ReadString('\n')
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(2*shortIdle)))
	_, err = events.ReadByte()
	require.ErrorContains(t, err, "timeout", "the answer has ended")
	require.Empty(t, b.logs.String())
}

// narrow is an HTTP/2 client whose streams take 64 KiB before somebody reads.
func (b *bench) narrow(t *testing.T) *http.Transport {
	client := b.front.Client().Transport.(*http.Transport).Clone()
	client.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// sends is an upstream that sends and tells how it ended; of unknown length where the path says so, which is flushed at once.
func sends(size int, ended chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		_, err := io.WriteString(w, strings.Repeat("x", size))
		ended <- err
	}
}

func TestAStreamThatIsNotReadIsLetGoAloneOfItsConnection(t *testing.T) {
	const size = 32 << 20 // more than sockets hold between proxy and upstream
	ended := make(chan error, 10)
	for _, path := range []string{"/length", "/chunked"} {
		b := start(t, sends(size, ended), impatient())
		b.overHTTP2(t)
		client := b.narrow(t)
		unread, err := client.RoundTrip(b.request(t, "GET", "/graph"+path, ""))
		require.NoError(t, err)
		require.Equal(t, "HTTP/2.0", unread.Proto)
		res, err := client.RoundTrip(b.request(t, "GET", "/graph"+path, ""))
		require.NoError(t, err)
		got, err := io.Copy(io.Discard, res.Body)
		require.NoError(t, err, "the other stream is disturbed")
		require.EqualValues(t, size, got)
		first, second := <-ended, <-ended
		require.False(t, first == nil && second == nil, "the upstream sends on to nobody")
		require.True(t, first == nil || second == nil, "nor to somebody")
		_, err = io.Copy(io.Discard, unread.Body)
		require.ErrorContains(t, err, "INTERNAL_ERROR")
		events := b.events(t, 2)
		require.ElementsMatch(t, []any{"", "client_gone"}, []any{events[0]["code"], events[1]["code"]})
		b.requireNobody(t)
	}
}

// What an answer leaves in the server's buffer is written after the handler has returned.
func TestAShortAnswerThatIsNotTakenIsLetGo(t *testing.T) {
	for _, target := range []string{"/graph/short", "/nowhere"} {
		b := start(t, nil, impatient())
		b.overHTTP2(t)
		conn := b.askWithoutWindow(t, target)
		for kind := byte(0); kind != 3; { // RST_STREAM
			var head [9]byte
			_, err := io.ReadFull(conn, head[:])
			require.NoError(t, err, "the stream has not been reset")
			kind = head[3]
			_, err = io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2]))
			require.NoError(t, err)
		}
	}
}

// askWithoutWindow sends a GET over HTTP/2 that takes no byte of its answer's body.
func (b *bench) askWithoutWindow(t *testing.T, target string) net.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", b.front.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	var fields []byte // each literal, without indexing (RFC 7541 section 6.2.2)
	for _, field := range [][2]string{
		{":method", "GET"}, {":scheme", "https"}, {":authority", "127.0.0.1"}, {":path", target}, {"x-bifrost-key", callerKey}, {"x-org-id", "acme"},
	} {
		fields = append(append(fields, 0, byte(len(field[0]))), field[0]...)
		fields = append(append(fields, byte(len(field[1]))), field[1]...)
	}
	sent := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" +
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00" + "\x00\x04\x00\x00\x00\x00") // SETTINGS: INITIAL_WINDOW_SIZE 0
	sent = append(sent, 0, 0, byte(len(fields)), 1, 5, 0, 0, 0, 1) // HEADERS: END_STREAM, END_HEADERS, stream 1
	_, err = conn.Write(append(sent, fields...))
	require.NoError(t, err)
	return conn
}

func TestAStreamThatIsReadLittleAtATimeIsNotCut(t *testing.T) {
	const size = 1 << 20
	ended := make(chan error, 2)
	for _, path := range []string{"/length", "/chunked"} {
		b := start(t, sends(size, ended), impatient())
		b.overHTTP2(t)
		res, err := b.narrow(t).RoundTrip(b.request(t, "GET", "/graph"+path, ""))
		require.NoError(t, err)
		var got int64
		slowly(func() {
			n, _ := io.CopyN(io.Discard, res.Body, 16<<10) // what is missing shows below
			got += n
		})
		rest, err := io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		require.EqualValues(t, size, got+rest)
	}
}

func TestAStreamOfEventsMayBeSilent(t *testing.T) {
	next := make(chan struct{})
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n")
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}, impatient())
	b.overHTTP2(t)
	res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", "/graph/events", ""))
	require.NoError(t, err)
	events := bufio.NewReader(res.Body)
	for range 3 {
		got, err := events.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "data: x\n", got)
		<-time.After(2 * shortIdle)
		next <- struct{}{}
	}
}
