package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// everyProtocol runs a test for callers and upstreams of HTTP/1.1 and HTTP/2.
func everyProtocol(t *testing.T, handler http.HandlerFunc, test func(*testing.T, *bench), changes ...change) {
	for _, caller := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, upstream := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(caller+" to "+upstream, func(t *testing.T) {
				var b *bench
				if upstream == "HTTP/2.0" {
					b = start(t, handler, append(changes, overTLS(true))...)
					t.Cleanup(func() { b.upstream.Close() })
				} else {
					b = start(t, handler, changes...)
				}
				if caller == "HTTP/2.0" {
					b.overHTTP2(t)
				}
				test(t, b)
				require.Equal(t, upstream, b.last(t).Proto)
			})
		}
	}
}

// send sends a request and leaves the body to be read.
func (b *bench) send(t *testing.T, r *http.Request) *http.Response {
	t.Helper()
	res, err := b.front.Client().Transport.RoundTrip(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestEventsArriveAsTheyAreSentOverEveryProtocol(t *testing.T) {
	next := make(chan struct{})
	everyProtocol(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}, func(t *testing.T, b *bench) {
		events := bufio.NewReader(b.send(t, b.request(t, "GET", "/graph/events", "")).Body)
		for i := range 3 {
			got, err := events.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("data: %d\n", i), got)
			_, _ = events.ReadString('\n')
			next <- struct{}{}
		}
	})
}

// An answer's head must not wait for its first byte: a caller of a quiet stream would think that nobody answers.
func TestTheHeadOfAStreamDoesNotWaitForItsBody(t *testing.T) {
	release := make(chan struct{})
	everyProtocol(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-release
	}, func(t *testing.T, b *bench) {
		require.Equal(t, 200, b.send(t, b.request(t, "GET", "/graph/events", "")).StatusCode)
		release <- struct{}{}
	})
}

func TestUploadsArriveAsTheyAreSentOverEveryProtocol(t *testing.T) {
	arrived := make(chan string)
	everyProtocol(t, func(_ http.ResponseWriter, r *http.Request) {
		part := make([]byte, 6)
		for {
			n, err := io.ReadFull(r.Body, part)
			if err != nil {
				return
			}
			arrived <- string(part[:n])
		}
	}, func(t *testing.T, b *bench) {
		body, in := io.Pipe()
		r := b.request(t, "PUT", "/graph/x", "", "Content-Type: application/octet-stream")
		r.Body = body
		answered := make(chan int, 1)
		go func() {
			res, err := b.front.Client().Transport.RoundTrip(r)
			if err != nil {
				answered <- 0
				return
			}
			_ = res.Body.Close()
			answered <- res.StatusCode
		}()
		for i := range 3 {
			_, err := fmt.Fprintf(in, "part %d", i)
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("part %d", i), <-arrived)
		}
		require.NoError(t, in.Close())
		require.Equal(t, 200, <-answered)
		require.EqualValues(t, -1, b.last(t).ContentLength)
	})
}

const file = "0123456789"

func serveFile(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Content-Type", "text/plain")
	http.ServeContent(w, r, "", time.Unix(1_700_000_000, 0), strings.NewReader(file))
}

func TestRangesAndConditionsPass(t *testing.T) {
	everyProtocol(t, serveFile, func(t *testing.T, b *bench) {
		for name, c := range map[string]struct {
			header string
			status int
			want   map[string]string
			body   string
		}{
			"whole":                {"Accept: */*", 200, map[string]string{"Content-Length": "10", "Accept-Ranges": "bytes", "Etag": `"v1"`}, file},
			"a range":              {"Range: bytes=2-4", 206, map[string]string{"Content-Length": "3", "Content-Range": "bytes 2-4/10"}, "234"},
			"a range out of reach": {"Range: bytes=20-", 416, map[string]string{"Content-Range": "bytes */10"}, "invalid range: failed to overlap\n"},
			"unchanged":            {`If-None-Match: "v1"`, 304, map[string]string{"Etag": `"v1"`, "Content-Length": ""}, ""},
			"unchanged since":      {"If-Modified-Since: " + time.Unix(1_800_000_000, 0).UTC().Format(http.TimeFormat), 304, nil, ""},
			"changed":              {`If-Match: "v2"`, 412, nil, ""},
		} {
			t.Run(name, func(t *testing.T) {
				res, body := b.get(t, "/graph/file", c.header)
				require.Equal(t, c.status, res.StatusCode)
				require.Equal(t, c.body, body)
				for header, value := range c.want {
					require.Equal(t, value, res.Header.Get(header), header)
				}
			})
		}
		res, body := b.get(t, "/graph/file", "Range: bytes=0-1,4-5")
		require.Equal(t, 206, res.StatusCode)
		require.Contains(t, res.Header.Get("Content-Type"), "multipart/byteranges; boundary=")
		require.Contains(t, body, "Content-Range: bytes 4-5/10\r\n")
	})
}

func TestHEADKeepsTheLengthOfWhatItLeavesOut(t *testing.T) {
	everyProtocol(t, serveFile, func(t *testing.T, b *bench) {
		res, body := b.do(t, b.request(t, "HEAD", "/graph/file", ""))
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, "10", res.Header.Get("Content-Length"))
		require.EqualValues(t, len(file), res.ContentLength)
		require.Empty(t, body)
		require.Equal(t, "HEAD", b.last(t).Method)
		res, body = b.get(t, "/graph/file")
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, file, body, "the connection goes on")
	})
}

// Nobody here asks for compression or takes it away: ETags, ranges and lengths are of the bytes as they are.
func TestEncodingsAreTheCallersBusiness(t *testing.T) {
	everyProtocol(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("X-Asked", strings.Join(r.Header["Accept-Encoding"], ","))
		_, _ = io.WriteString(w, "not really")
	}, func(t *testing.T, b *bench) {
		b.front.Client().Transport.(*http.Transport).DisableCompression = true
		for _, asked := range []string{"", "br, gzip;q=0.5"} {
			res, body := b.get(t, "/graph/x", "Accept-Encoding: "+asked)
			require.Equal(t, asked, res.Header.Get("X-Asked"))
			require.Equal(t, "gzip", res.Header.Get("Content-Encoding"))
			require.Equal(t, "not really", body)
		}
	})
}

func TestInformationalAnswersAndTrailersStayHereOverEveryProtocol(t *testing.T) {
	everyProtocol(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</CANARY>; rel=preload")
		w.Header().Set("X-Request-Id", "CANARY")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.Header().Del("Link")
		w.Header().Set("Trailer", "X-Announced")
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Trailers", fmt.Sprint(len(r.Trailer)))
		_, _ = io.WriteString(w, "body")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("X-Announced", "CANARY")
		w.Header().Set(http.TrailerPrefix+"X-Late", "CANARY")
	}, func(t *testing.T, b *bench) {
		r := b.request(t, "POST", "/graph/x", "body", "X-Request-ID: mine")
		r.ContentLength = -1
		r.Trailer = http.Header{"X-Org-Id": {"evil"}}
		informed := false
		r = r.WithContext(got1xx(r.Context(), func() { informed = true }))
		res, body := b.do(t, r)
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, "body", body)
		require.False(t, informed)
		require.Empty(t, res.Trailer)
		require.Equal(t, "0", res.Header.Get("X-Trailers"))
		require.Equal(t, []string{"mine"}, res.Header["X-Request-Id"])
		require.Equal(t, []string{"org"}, res.Header["X-Bifrost-Connection"])
		require.NotContains(t, fmt.Sprint(res.Header), "CANARY")
	})
}

// expecting sends a request's head.
func (b *bench) expecting(t *testing.T, expect string) end {
	t.Helper()
	conn, in := b.dialed(t)
	e := end{conn, in}
	e.send(t, line("PUT", "/graph/x", "Content-Length: 4", "Expect: "+expect))
	return e
}

// status reads one answer's head.
func (e end) status(t *testing.T) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(e.in, nil)
	require.NoError(t, err)
	return res
}

func TestABodyIsAskedForWhenTheUpstreamAsksForIt(t *testing.T) {
	ask := make(chan struct{})
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		<-ask
		body, _ := io.ReadAll(r.Body) // it sends the 100
		_, _ = w.Write(body)
	})
	e := b.expecting(t, "100-continue")
	require.NoError(t, e.SetReadDeadline(time.Now().Add(continueTimeout/4)))
	_, err := e.in.Peek(1)
	require.ErrorContains(t, err, "timeout", "the caller has been asked before the upstream asked")
	require.NoError(t, e.SetReadDeadline(time.Now().Add(10*time.Second)))
	began := time.Now()
	ask <- struct{}{}
	require.Equal(t, 100, e.status(t).StatusCode)
	require.Less(t, time.Since(began), continueTimeout/2)
	e.send(t, "body")
	res := e.status(t)
	require.Equal(t, 200, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "body", string(body))
	require.Equal(t, "100-continue", b.last(t).Header.Get("Expect"))
}

// RFC 9110 section 10.1.1: an upstream may never say it, and the client must not wait for ever.
func TestAnUpstreamThatNeverSaysContinueGetsTheBodyAfterAWhile(t *testing.T) {
	silent, ends := switching(t, "")
	b := start(t, nil, silent)
	began := time.Now()
	e := b.expecting(t, "100-continue")
	far := <-ends
	require.Equal(t, 100, e.status(t).StatusCode)
	require.GreaterOrEqual(t, time.Since(began), continueTimeout*9/10)
	e.send(t, "body")
	far.receive(t, "body")
	far.send(t, "HTTP/1.1 204 No Content\r\n\r\n")
	require.Equal(t, 204, e.status(t).StatusCode)
}

func TestARefusalComesInsteadOfContinue(t *testing.T) {
	refusing, _ := switching(t, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	b := start(t, nil, refusing)
	res := b.expecting(t, "100-continue").status(t)
	require.Equal(t, 413, res.StatusCode)
	require.True(t, res.Close, "nobody knows whether the body will come")
	require.Less(t, b.events(t, 1)[0]["duration"], continueTimeout.Seconds())
}

// Where the upstream keeps the connection, net/http still wants to send the body, and so the caller may be asked for it. The
// answer does not wait for that.
func TestARefusalDoesNotWaitForTheBody(t *testing.T) {
	refusing, _ := switching(t, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
	b := start(t, nil, refusing)
	e := b.expecting(t, "100-continue")
	res := e.status(t)
	if res.StatusCode == 100 {
		res = e.status(t)
	}
	require.Equal(t, 413, res.StatusCode)
	require.Less(t, b.events(t, 1)[0]["duration"], continueTimeout.Seconds())
}

func TestOtherExpectationsFail(t *testing.T) {
	b := start(t, nil)
	caller := b.expecting(t, "the-unexpected")
	require.Equal(t, 417, caller.status(t).StatusCode)
	require.Empty(t, b.requests())
	require.NoError(t, caller.Close())

	// The server does not look at them in HTTP/2. The upstream's does.
	b.overHTTP2(t)
	res, _ := b.get(t, "/graph/x", "Expect: the-unexpected")
	require.Equal(t, "HTTP/2.0", res.Proto)
	require.Equal(t, 417, res.StatusCode)
	require.Empty(t, b.requests())
}

// got1xx calls f for every informational answer.
func got1xx(ctx context.Context, f func()) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { f(); return nil }})
}
