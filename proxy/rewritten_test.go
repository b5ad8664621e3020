package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var rewritingLinks = onRoute(func(r *Route) { r.RewriteLinks = true })

// answering answers with a body, in which UPSTREAM stands for the upstream's address, its length, and headers, "Name: value".
func answering(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := strings.ReplaceAll(body, "UPSTREAM", "http://"+r.Host)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		for _, line := range headers {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Set(name, value)
		}
		if r.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = io.WriteString(w, body)
	}
}

func TestPagesAreFollowedByTheLinksInTheirBodies(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json;odata.metadata=minimal")
		page := map[string]any{"@odata.context": "http://" + r.Host + "/v1.0/$metadata#users", "value": []string{r.URL.RawQuery}}
		for now, next := range map[string]string{"": "2", "$skiptoken=2": "3"} {
			if r.URL.RawQuery == now {
				page["@odata.nextLink"] = "http://" + r.Host + "/v1.0/users?$skiptoken=" + next
			}
		}
		_ = json.NewEncoder(w).Encode(page)
	}, rewritingLinks)
	var got []string
	for next := b.front.URL + "/graph/v1.0/users"; next != ""; {
		rest, ours := strings.CutPrefix(next, b.front.URL)
		require.True(t, ours, next)
		res, body := b.get(t, rest)
		require.Equal(t, 200, res.StatusCode)
		var page struct {
			Context string   `json:"@odata.context"`
			Next    string   `json:"@odata.nextLink"`
			Value   []string `json:"value"`
		}
		require.NoError(t, json.Unmarshal([]byte(body), &page))
		require.Equal(t, b.front.URL+"/graph/v1.0/$metadata#users", page.Context)
		got, next = append(got, page.Value...), page.Next
	}
	require.Equal(t, []string{"", "$skiptoken=2", "$skiptoken=3"}, got)
	require.Len(t, b.requests(), 3)
}

func TestALinkIsRewrittenWhereverItsBodyIsCut(t *testing.T) {
	page := func(url string) string {
		return `{"a":"` + url + `\/x","b":"` + strings.ReplaceAll(url, "/", `\/`) + `"}`
	}
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		body := page("http://" + r.Host)
		w.Header().Set("Content-Type", "application/vnd.api+json")
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		cut, _ := strconv.Atoi(r.URL.Query().Get("cut"))
		_, _ = io.WriteString(w, body[:cut])
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, body[cut:])
	}, rewritingLinks)
	want := page(b.front.URL + "/graph")
	for cut := range len(page(b.upstream.URL)) {
		for _, form := range []string{"length", "chunked"} {
			_, got := b.get(t, fmt.Sprintf("/graph/x?cut=%d&%s", cut, form))
			require.Equal(t, want, got, "cut at %d, %s", cut, form)
		}
	}
}

func TestARewrittenStreamArrivesAsItIsSent(t *testing.T) {
	next := make(chan struct{})
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for range 3 {
			_, _ = fmt.Fprintf(w, "{\"a\":\"http://%s/x\"}\n", r.Host)
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	}, rewritingLinks)
	res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", "/graph/x", ""))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReader(res.Body)
	for range 3 {
		got, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "{\"a\":\""+b.front.URL+"/graph/x\"}\n", got)
		next <- struct{}{}
	}
}

func TestTheHeadersOfARewrittenAnswerDescribeIt(t *testing.T) {
	for _, short := range []bool{true, false} {
		body := `["UPSTREAM/x"]`
		if !short {
			body = "[" + strings.Repeat(body+",", 20_000) + "0]"
		}
		b := start(t, answering(body, `ETag: "strong"`, "Content-MD5: x", "Digest: x", "Content-Digest: x", "Repr-Digest: x", "Accept-Ranges: bytes", "Last-Modified: x"),
			rewritingLinks, onConfig(func(c *Config) { c.PublicURL = "https://bifrost.example/of/ours" }))
		res, got := b.get(t, "/graph/x", "Accept-Encoding: gzip, br")
		require.Equal(t, strings.ReplaceAll(body, "UPSTREAM", "https://bifrost.example/of/ours/graph"), got)
		require.Equal(t, []string{"identity"}, b.last(t).Header["Accept-Encoding"])
		if short {
			require.EqualValues(t, len(got), res.ContentLength)
		} else {
			require.EqualValues(t, -1, res.ContentLength)
		}
		head, _ := b.do(t, b.request(t, "HEAD", "/graph/x", ""))
		require.EqualValues(t, -1, head.ContentLength, "the upstream's would be wrong")
		for _, h := range []http.Header{res.Header, head.Header} {
			for _, name := range []string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"} {
				require.NotContains(t, h, name)
			}
			require.Equal(t, `"strong"`, h.Get("ETag"))
			require.Equal(t, "x", h.Get("Last-Modified"))
		}
	}
}

func TestOtherBodiesStayAsTheyAre(t *testing.T) {
	const body = `["UPSTREAM/x"]`
	for name, headers := range map[string][]string{
		"compressed":            {"Content-Encoding: gzip"},
		"events":                {"Content-Type: text/event-stream"},
		"HTML":                  {"Content-Type: text/html"},
		"no JSON":               {"Content-Type: application/jsonp"},
		"lines":                 {"Content-Type: application/x-ndjson"},
		"JSON in the parameter": {"Content-Type: multipart/related; type=application/json"},
		"no type":               {"Content-Type: "},
	} {
		b := start(t, answering(body, append(headers, "Digest: x", "Accept-Ranges: bytes")...), rewritingLinks)
		res, got := b.get(t, "/graph/x", "Accept-Encoding: identity")
		want := strings.ReplaceAll(body, "UPSTREAM", b.upstream.URL)
		require.Equal(t, want, got, name)
		require.EqualValues(t, len(want), res.ContentLength, name)
		require.Equal(t, "x", res.Header.Get("Digest"), name)
		require.Equal(t, "bytes", res.Header.Get("Accept-Ranges"), name)
	}
	for _, json := range []string{"Application/JSON", "application/json ;charset=utf-8", "application/problem+JSON; x=y"} {
		b := start(t, answering(body, "Content-Type: "+json, "Content-Encoding: identity"), rewritingLinks)
		_, got := b.get(t, "/graph/x")
		require.Equal(t, `["`+b.front.URL+`/graph/x"]`, got, json)
	}
	b := start(t, answering(body, "Digest: x"), rewritingLinks)
	want := strings.ReplaceAll(body, "UPSTREAM", b.upstream.URL)
	res, got := b.get(t, "/graph/x", "Range: bytes=0-")
	require.Equal(t, 206, res.StatusCode)
	require.Equal(t, want, got, "offsets in it are the upstream's")

	r := b.request(t, "GET", "/graph/x", "")
	r.Host = "evil'&$"
	res, got = b.do(t, r)
	require.Equal(t, want, got, "no link could be made of this Host")
	require.Equal(t, "x", res.Header.Get("Digest"))

	b = start(t, answering(body))
	_, got = b.get(t, "/graph/x", "Accept-Encoding: br")
	require.Equal(t, strings.ReplaceAll(body, "UPSTREAM", b.upstream.URL), got, "only where it is asked for")
	require.Equal(t, "br", b.last(t).Header.Get("Accept-Encoding"))
}

func TestAWebSocketIsNoBodyToRewrite(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.WriteHeader(http.StatusSwitchingProtocols)
	}, rewritingLinks, onRoute(func(r *Route) { r.WebSocket = true }))
	res := b.raw(t, line("GET", "/graph/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: key"))
	require.Equal(t, 101, res.StatusCode)
}

func TestAnAnswerWithoutABodyStaysAsItIs(t *testing.T) {
	b := start(t, answering("", "Digest: x"), rewritingLinks)
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, "x", res.Header.Get("Digest"))
	require.Zero(t, res.ContentLength)
}

func TestRewrittenLinksNameTheAddressThatTheCallerUsed(t *testing.T) {
	b := start(t, answering(`["UPSTREAM/x"]`), rewritingLinks, onRoute(func(r *Route) { r.Hosts = []string{"graph.internal"} }))
	for host, want := range map[string]string{"graph.internal": "http://graph.internal/x", "GRAPH.internal:80": "http://GRAPH.internal:80/x", "b.example:90": "http://b.example:90/graph/x"} {
		r := b.request(t, "GET", "/graph/x", "")
		r.Host = host
		_, got := b.do(t, r)
		require.Equal(t, `["`+want+`"]`, got)
	}
	b.overHTTP2(t)
	res, got := b.get(t, "/graph/x")
	require.Equal(t, "HTTP/2.0", res.Proto)
	require.Equal(t, `["`+b.front.URL+`/graph/x"]`, got)
	require.True(t, strings.HasPrefix(b.front.URL, "https://"))
}

func TestLinksOfAnUpstreamOverHTTP2AreRewritten(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `["https://%s/x"]`, r.Host)
		w.Header().Set(http.TrailerPrefix+"Set-Cookie", "CANARY")
	}, overTLS(true), rewritingLinks)
	t.Cleanup(func() { b.upstream.Close() })
	b.overHTTP2(t)
	res, got := b.get(t, "/graph/x")
	require.Equal(t, `["`+b.front.URL+`/graph/x"]`, got)
	require.Empty(t, res.Trailer)
}

func TestAnEchoedQueryCredentialIsTakenOutOfBodies(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"next":"http://%s%s&page=2","asked":"%s"}`, r.Host, r.RequestURI, r.RequestURI)
	}, rewritingLinks, onRoute(func(r *Route) { r.Query = "access token" }))
	_, got := b.get(t, "/graph/x?a=1")
	require.Contains(t, b.last(t).RequestURI, "CANARY")
	want := `{"next":"` + b.upstream.URL + `/x?a=1&access+token=&page=2","asked":"/x?a=1&access+token="}`
	r := b.request(t, "GET", "/graph/x?a=1", "")
	r.Host = "evil'&$"
	_, body := b.do(t, r)
	require.Equal(t, want, body, "also where no link can be made")
	require.Equal(t, `{"next":"`+b.front.URL+`/graph/x?a=1&access+token=&page=2","asked":"/x?a=1&access+token="}`, got)
}

// A cut answer must not look whole because its end was held back or its length was taken away.
func TestARewrittenAnswerThatIsCutStaysCut(t *testing.T) {
	for _, length := range []string{"1000", ""} {
		b := start(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = io.WriteString(w, `{"a":"http:/`)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, rewritingLinks)
		res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", "/graph/x", ""))
		if err != nil {
			continue // nothing came at all
		}
		_, err = io.ReadAll(res.Body)
		require.Error(t, err)
		_ = res.Body.Close()
	}
}

// The end of an answer without a length comes after the rest of the body would have been read, and the caller may wait for it.
func TestARewrittenAnswerThatComesEarlyEndsTheConnection(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, _ *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()             // or net/http would read the whole body before it answers
		w.Header().Set("Connection", "close") // or it panics when it reads on: golang/go#68560
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "{}")
		_ = rc.Flush()
	}, rewritingLinks)
	conn, err := net.Dial("tcp", b.front.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, line("POST", "/graph/x", "Content-Length: 100000")+"first bytes")
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	require.True(t, res.Close)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "{}", string(body))
}
