package proxy

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever a body is and however it comes, rewriting it while it passes gives what rewriting the whole would.
func FuzzRewriteBody(f *testing.F) {
	rewritings := []*rewriting{
		newRewriting(f, graph, bifrost, "", ""),
		newRewriting(f, "https://a.b:8443/c/d", "http://[::1]:8080/e", "", ""),
		newRewriting(f, "http://[::1]/c", "https://b.example", "k", "aab"),
	}
	for i, body := range []string{
		`{"@odata.nextLink":"https://graph.microsoft.com/v1.0/users?$skip=1"}`,
		`"https:\/\/A.b:8443\/c\/d","https://a.b:8443/c/d"`,
		`"HTTP://[::1]:80/c?k=aab&k=aaab"`,
		`"https:\/\/graph.microsoft.com:443#"https://graph.microsoft.com"`,
	} {
		f.Add(body, []byte{}, []byte{}, byte(i))
		f.Add(body, []byte{0}, []byte{0}, byte(i))
		f.Add(body, []byte{9, 30}, []byte{4}, byte(i))
	}
	f.Fuzz(func(t *testing.T, body string, lengths, sizes []byte, mode byte) {
		rw := rewritings[int(mode&3)%len(rewritings)]
		size := 0
		if mode&4 != 0 {
			size = 128
		}
		edited := rw.over(&pieces{body: body, lengths: lengths, withEOF: mode&8 != 0}, size)
		var got strings.Builder
		buf := make([]byte, 256)
		for i := 0; ; i++ {
			p := buf
			if len(sizes) > 0 {
				p = buf[:int(sizes[i%len(sizes)])+1]
			}
			n, err := edited.Read(p)
			got.Write(p[:n])
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.NotZero(t, n)
		}
		require.Equal(t, rw.reference(body), got.String())
	})
}
