package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// rewriting is a body's rewriting, as rewriteBody sets it up and as it is told in a few lines over the whole body.
type rewriting struct {
	target     *target
	with       string
	name, pair string // of the credential in the query; none if empty
	begins     *regexp.Regexp
}

func newRewriting(t testing.TB, upstream, with, name, secret string) *rewriting {
	t.Helper()
	made, err := newTarget(Target{BaseURL: upstream}, "Authorization")
	require.NoError(t, err)
	rw := &rewriting{target: made, with: with}
	if name != "" {
		rw.name, rw.pair = name+"=", name+"="+secret
	}
	slashes := func(s string) string { return strings.ReplaceAll(regexp.QuoteMeta(s), "/", `\\?/`) }
	anyCase := regexp.MustCompile(`[a-z]`).ReplaceAllStringFunc
	fold := func(s string) string {
		return anyCase(regexp.QuoteMeta(strings.ToLower(s)), func(c string) string { return "[" + c + strings.ToUpper(c) + "]" })
	}
	host, port := made.host, ""
	if i := strings.LastIndex(host, ":"); i > strings.LastIndex(host, "]") {
		host, port = host[:i], host[i:]
	}
	if standard := map[string]string{"http": ":80", "https": ":443"}[made.scheme]; port == "" || port == standard {
		port = "(?::(?:" + standard[1:] + ")?)?"
	}
	rw.begins = regexp.MustCompile(`^(` + fold(made.scheme) + slashes("://") + fold(host) + port + slashes(made.base) + `)(?:[/?#{"]|\\/)`)
	return rw
}

// reference rewrites a whole body.
func (rw *rewriting) reference(body string) string {
	if rw.pair != "" {
		body = strings.ReplaceAll(body, rw.pair, rw.name)
	}
	var out strings.Builder
	for i := 0; i < len(body); i++ {
		out.WriteByte(body[i])
		if body[i] != '"' || i > 0 && body[i-1] == '\\' {
			continue
		}
		if found := rw.begins.FindStringSubmatch(body[i+1:]); found != nil {
			if strings.Contains(found[1], `:\`) {
				out.WriteString(strings.ReplaceAll(rw.with, "/", `\/`))
			} else {
				out.WriteString(rw.with)
			}
			i += len(found[1])
		}
	}
	return out.String()
}

// over puts the rewriting over src; with a size, over a buffer so small.
func (rw *rewriting) over(src io.Reader, size int) *editedBody {
	edited := func(src io.Reader, f finder) *editedBody {
		b := &editedBody{src: io.NopCloser(src), buffers: &buffers{}, finder: f}
		if size > 0 {
			b.buf = make([]byte, size)
		}
		return b
	}
	if rw.pair != "" {
		src = edited(src, &pairFinder{pair: []byte(rw.pair), keep: len(rw.name)})
	}
	return edited(src, &linkFinder{own: &rw.target.own, with: rw.with})
}

// pieces is a body that comes in pieces, whose lengths it takes in turn.
type pieces struct {
	body    string
	lengths []byte
	i       int
	withEOF bool // the last piece comes together with the end
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.body == "" {
		return 0, io.EOF
	}
	n := len(p.body)
	if len(p.lengths) > 0 {
		n = min(n, int(p.lengths[p.i%len(p.lengths)])+1)
		p.i++
	}
	n = copy(b, p.body[:n])
	p.body = p.body[n:]
	if p.body == "" && p.withEOF {
		return n, io.EOF
	}
	return n, nil
}

const (
	graph   = "https://graph.microsoft.com"
	bifrost = "https://b.example/graph"
)

func TestStringsThatBeginWithAURLOfTheUpstream(t *testing.T) {
	plain := newRewriting(t, graph, bifrost, "", "")
	based := newRewriting(t, "https://API.example:8443/base/v1%20x/", "http://127.0.0.1:8080", "", "")
	local := newRewriting(t, "http://127.0.0.1:80/b", bifrost, "", "")
	keyed := newRewriting(t, graph, bifrost, "key", "s3cr%2Ft")
	for _, row := range []struct {
		rw       *rewriting
		from, to string
	}{
		{plain, `{"@odata.nextLink":"https://graph.microsoft.com/v1.0/users?$skip=1"}`, `{"@odata.nextLink":"https://b.example/graph/v1.0/users?$skip=1"}`},
		{plain, `{"next" : "https:\/\/graph.microsoft.com\/v1.0\/users"}`, `{"next" : "https:\/\/b.example\/graph\/v1.0\/users"}`},
		{plain, `"https://graph.microsoft.com"`, `"https://b.example/graph"`},
		{plain, `["https://graph.microsoft.com?a","https://graph.microsoft.com#a","https://graph.microsoft.com{/a}"]`, `["https://b.example/graph?a","https://b.example/graph#a","https://b.example/graph{/a}"]`},
		{plain, `"HTTPS://Graph.Microsoft.COM:443/a"`, `"https://b.example/graph/a"`},
		{plain, `"https://graph.microsoft.com:/a"`, `"https://b.example/graph/a"`},
		{plain, `"https:/\/graph.microsoft.com/a" "https:\//graph.microsoft.com/a"`, `"https://b.example/graph/a" "https:\/\/b.example\/graph/a"`},
		{plain, `{"https://graph.microsoft.com/a":1}`, `{"https://b.example/graph/a":1}`},
		{plain, `["https://graph.microsoft.com/a","https://graph.microsoft.com/b"]`, `["https://b.example/graph/a","https://b.example/graph/b"]`},
		{plain, `""https://graph.microsoft.com"https://graph.microsoft.com/"`, `""https://b.example/graph"https://b.example/graph/"`},
		{plain, `"https://x.example/"https://graph.microsoft.com/`, `"https://x.example/"https://b.example/graph/`},
		{plain, `"https://graph.microsoft.com\u002fa"`, ""},
		{plain, `"https://graph.microsoft.com\\/a"`, ""},
		{plain, `"https:\\//graph.microsoft.com/a"`, ""},
		{plain, `"https://graph.microsoft.com:444/a"`, ""},
		{plain, `"https://graph.microsoft.com:4433/a"`, ""},
		{plain, `"https://graph.microsoft.com:44/a"`, ""},
		{plain, `"https://graph.microsoft.com@evil.example/a"`, ""},
		{plain, `"https://graph.microsoft.com:443@evil.example/a"`, ""},
		{plain, `"https://graph.microsoft.com.evil.example/a"`, ""},
		{plain, `"https://graph.microsoft.com%2Fa"`, ""},
		{plain, `"https://u@graph.microsoft.com/a"`, ""},
		{plain, `"https://graph.microsoft.co/a"`, ""},
		{plain, `"http://graph.microsoft.com/a"`, ""},
		{plain, `" https://graph.microsoft.com/a"`, ""},
		{plain, `"see https://graph.microsoft.com/a"`, ""},
		{plain, `"<a href=\"https://graph.microsoft.com/a\">"`, ""},
		{plain, `https://graph.microsoft.com/a`, ""},
		{plain, `//graph.microsoft.com/a "//graph.microsoft.com/a"`, ""},
		{plain, `"https://grap` + "\u212a" + `.microsoft.com/a" "http` + "\u017f" + `://graph.microsoft.com/a"`, ""},
		{plain, `"https://graph.microsoft.com`, ""},
		{plain, `"https://graph.microsoft.com\`, ""},
		{plain, `"https://graph.microsoft.com:44`, ""},
		{plain, `"https:\`, ""},
		{plain, `"http`, ""},
		{plain, `"`, ""},
		{plain, ``, ""},
		{based, `"https://api.example:8443/base/v1%20x/y"`, `"http://127.0.0.1:8080/y"`},
		{based, `"https:\/\/api.example:8443\/base\/v1%20x"`, `"http:\/\/127.0.0.1:8080"`},
		{based, `"https://api.example:8443/base\/v1%20x?y"`, `"http://127.0.0.1:8080?y"`},
		{based, `"https://api.example:8443/Base/v1%20x/y"`, ""},
		{based, `"https://api.example:8443/base/v1%20xy"`, ""},
		{based, `"https://api.example:8443/base"`, ""},
		{based, `"https://api.example/base/v1%20x/y"`, ""},
		{local, `"http://127.0.0.1:80/b/x" "http://127.0.0.1/b/x" "http://127.0.0.1:8080/b/x"`, `"https://b.example/graph/x" "https://b.example/graph/x" "http://127.0.0.1:8080/b/x"`},
		{keyed, `"https://graph.microsoft.com/x?key=s3cr%2Ft&a=b"`, `"https://b.example/graph/x?key=&a=b"`},
		{keyed, `key=s3cr%2Ftkey=s3cr%2Ft&key=s3cr%2F key=key=s3cr%2Ft`, `key=key=&key=s3cr%2F key=key=`},
		{keyed, `key=s3cr%2F`, ""},
	} {
		if row.to == "" {
			row.to = row.from
		}
		require.Equal(t, row.to, row.rw.reference(row.from), "the reference is wrong: %s", row.from)
		for _, size := range []int{0, 128} {
			got, err := io.ReadAll(row.rw.over(strings.NewReader(row.from), size))
			require.NoError(t, err)
			require.Equal(t, row.to, string(got), row.from)
			got, err = io.ReadAll(row.rw.over(iotest.OneByteReader(strings.NewReader(row.from)), size))
			require.NoError(t, err)
			require.Equal(t, row.to, string(got), row.from)
			for cut := 1; cut < len(row.from); cut++ {
				src := io.MultiReader(strings.NewReader(row.from[:cut]), strings.NewReader(row.from[cut:]))
				got, err = io.ReadAll(iotest.OneByteReader(row.rw.over(src, size)))
				require.NoError(t, err)
				require.Equal(t, row.to, string(got), "%s cut at %d", row.from, cut)
			}
		}
	}
}

func TestLinksInBodiesLargerThanEveryBuffer(t *testing.T) {
	const seed = 4
	random := rand.New(rand.NewPCG(seed, seed)) // the same body every time
	parts := []string{`"https://graph.microsoft.com/v1.0/users"`, `"https:\/\/GRAPH.microsoft.com:443"`, `,`, `"x":`, `"https://other.example/x"`, strings.Repeat("prose / ", 40), `\`, `"`, `key=s3cret`}
	var text strings.Builder
	for text.Len() < 300<<10 {
		text.WriteString(parts[random.IntN(len(parts))])
	}
	for _, with := range []string{bifrost, "http://x", "https://" + strings.Repeat("long.", 40) + "example"} {
		rw := newRewriting(t, graph, with, "key", "s3cret")
		want := rw.reference(text.String())
		for _, lengths := range [][]byte{nil, {255}, {0, 7, 100, 3}} {
			got, err := io.ReadAll(rw.over(&pieces{body: text.String(), lengths: lengths}, 0))
			require.NoError(t, err)
			require.True(t, want == string(got), "%v: not what a whole-body replace gives", lengths)
		}
	}
}

// chunk gives one part of a body per call; an empty one fails the test, since it stands for waiting.
type chunk struct {
	t     *testing.T
	parts []string
}

func (c *chunk) Read(p []byte) (int, error) {
	require.NotEmpty(c.t, c.parts, "it waits for more, with something to hand on")
	n := copy(p, c.parts[0])
	c.parts = c.parts[1:]
	return n, nil
}

func TestWhatABodyGivesIsHandedOnAtOnce(t *testing.T) {
	rw := newRewriting(t, graph, bifrost, "key", "s3cret")
	for from, to := range map[string]string{
		`{"a":1,`:                               `{"a":1,`,
		`{"a":"`:                                `{"a":`,
		`{"a":"h`:                               `{"a":`,
		`{"a":"\"h`:                             `{"a":"\"h`,
		`{"a":"hx`:                              `{"a":"hx`,
		`{"a":"https:\/\/graph.microsoft.com`:   `{"a":`,
		`{"a":"https://graph.microsoft.com:44`:  `{"a":`,
		`{"a":"https://graph.microsoft.com:44x`: `{"a":"https://graph.microsoft.com:44x`,
		`{"a":"https://graph.microsoft.com/`:    `{"a":"https://b.example/graph/`,
		`{"a":"https://b`:                       `{"a":"https://b`,
		`?key=s3cre`:                            `?`,
		`?key=s3crk`:                            `?key=s3cr`,
		`?key=s3crx`:                            `?key=s3crx`,
	} {
		src := &chunk{t, []string{from}}
		buf := make([]byte, 1000)
		got, body := "", rw.over(src, 0)
		for len(got) < len(to) {
			n, err := body.Read(buf)
			require.NoError(t, err)
			got += string(buf[:n])
		}
		require.Equal(t, to, got)
	}
}

func TestABodysErrorStaysOne(t *testing.T) {
	cut := errors.New("cut")
	rw := newRewriting(t, graph, bifrost, "", "")
	for _, body := range []string{``, `{}`, `{"a":"https://graph.micro`, `{"a":"https://graph.microsoft.com`} {
		got, err := io.ReadAll(rw.over(io.MultiReader(strings.NewReader(body), iotest.ErrReader(cut)), 0))
		require.ErrorIs(t, err, cut)
		require.Equal(t, body, string(got))
	}
}

func TestAURLLongerThanTheBufferDoesNotStopABody(t *testing.T) {
	rw := newRewriting(t, graph+"/"+strings.Repeat("long", 100), bifrost, "", "")
	body := `["` + rw.target.own.usual + `/x"]`
	got, err := io.ReadAll(rw.over(unlessFull{t, strings.NewReader(body)}, 128))
	require.NoError(t, err)
	require.Equal(t, body, string(got))
	got, err = io.ReadAll(rw.over(strings.NewReader(body), bufferSize))
	require.NoError(t, err)
	require.Equal(t, `["`+bifrost+`/x"]`, string(got))
}

// unlessFull is read only into buffers that have room.
type unlessFull struct {
	t   *testing.T
	src io.Reader
}

func (u unlessFull) Read(p []byte) (int, error) {
	require.NotEmpty(u.t, p)
	return u.src.Read(p)
}

// waitingBody gives nothing until it may end.
type waitingBody struct {
	waits, ends chan struct{}
	closed      bool
}

func (w *waitingBody) Read([]byte) (int, error) {
	close(w.waits)
	<-w.ends
	return 0, io.ErrClosedPipe
}

func (w *waitingBody) Close() error {
	w.closed = true
	return nil
}

func TestABodyClosedWhileItIsReadGivesItsBufferBackAfterwards(t *testing.T) {
	rw := newRewriting(t, graph, bifrost, "", "")
	src := &waitingBody{waits: make(chan struct{}), ends: make(chan struct{})}
	b := &editedBody{src: src, buffers: &buffers{}, finder: &linkFinder{own: &rw.target.own, with: bifrost}}
	ended := make(chan error)
	go func() {
		_, err := b.Read(make([]byte, 10))
		ended <- err
	}()
	<-src.waits
	require.NoError(t, b.Close())
	require.True(t, src.closed)
	require.NotNil(t, b.buf, "the source may still write into it")
	close(src.ends)
	require.ErrorIs(t, <-ended, io.ErrClosedPipe)
	require.Nil(t, b.buf)
	_, err := b.Read(make([]byte, 1))
	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
	require.Nil(t, b.buf)
}

func TestRewritingAReadAllocatesNothing(t *testing.T) {
	page := []byte(strings.Repeat(`{"@odata.id":"https:\/\/graph.microsoft.com\/v1.0\/users('x')","n":"https://graph.microsoft.com/x"},`, 100))
	rw := newRewriting(t, graph, bifrost, "", "")
	src := bytes.NewReader(nil)
	b := rw.over(src, bufferSize)
	buf := make([]byte, bufferSize)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		src.Reset(page)
		b.err = nil
		for {
			if _, err := b.Read(buf); err != nil {
				return
			}
		}
	}))
}
