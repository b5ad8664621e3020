package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// graphPage is a page of 1 MiB such as Microsoft Graph makes them, with 5,000 links to itself.
func graphPage(origin string) []byte {
	const links, size = 5000, 1 << 20
	var page bytes.Buffer
	page.WriteString(`{"@odata.context":"` + origin + `/v1.0/$metadata#users(id,displayName)","value":[`)
	for i := range links {
		item := fmt.Sprintf(`{"@odata.id":"%s/v1.0/users/%08d","id":"%08d","displayName":"Adele Vance","mobilePhone":null,"officeLocation":"18/2111","surname":"`, origin, i, i)
		page.WriteString(item + strings.Repeat("Vance ", 40)[:max(0, size/links-len(item)-3)] + `"},`)
	}
	page.WriteString(`{}]}`)
	return page.Bytes()
}

// BenchmarkRewriteLinks takes a page of 1 MiB with 5,000 links through the rewriting alone, and reports its time in copies of the
// same page; the memory for both is at hand.
func BenchmarkRewriteLinks(b *testing.B) {
	page := graphPage(graph)
	rw := newRewriting(b, graph, bifrost, "", "")
	src := bytes.NewReader(page)
	body := rw.over(src, bufferSize)
	buf, sink := make([]byte, bufferSize), make([]byte, bufferSize)
	var rewritten, copied time.Duration
	var total int
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		began := time.Now()
		src.Reset(page)
		body.err = nil
		for {
			n, err := body.Read(buf)
			if total += copy(sink, buf[:n]); err != nil {
				break
			}
		}
		rewritten += time.Since(began)
		began = time.Now()
		for src.Reset(page); ; {
			n, err := src.Read(buf)
			if copy(sink, buf[:n]); err != nil {
				break
			}
		}
		copied += time.Since(began)
	}
	if want := len(rw.reference(string(page))); total != want*b.N {
		b.Fatal("links were not rewritten")
	}
	b.ReportMetric(float64(rewritten)/float64(copied), "x-copy")
	b.ReportMetric(float64(rewritten.Microseconds())/float64(b.N), "µs/page")
}

// BenchmarkRewrittenPage takes the same page through the whole proxy over loopback, in turns with the proxy that does not rewrite
// and with bare httputil.
func BenchmarkRewrittenPage(b *testing.B) {
	var page []byte
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", fmt.Sprint(len(page)))
		_, _ = w.Write(page)
	}))
	b.Cleanup(upstream.Close)
	page = graphPage(upstream.URL)
	const ours, plain, bare = 0, 1, 2
	handlers := [...]http.Handler{
		ours:  warmProxy(b, upstream.URL, warm{orgs: 1}),
		plain: warmProxy(b, upstream.URL, warm{orgs: 1}),
		bare:  bareProxy(b, upstream.URL, nil),
	}
	handlers[ours].(*Proxy).routes[0].RewriteLinks = true
	fronts := make([]*httptest.Server, len(handlers))
	for i, h := range handlers {
		fronts[i] = httptest.NewServer(h)
		b.Cleanup(fronts[i].Close)
	}
	fetch := func(i int) time.Duration {
		r := warmRequest(b, 0)
		r.RequestURI, r.URL.Scheme, r.URL.Host = "", "http", strings.TrimPrefix(fronts[i].URL, "http://")
		began := time.Now()
		res, err := fronts[i].Client().Transport.RoundTrip(r)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); err != nil || n < 1<<19 {
			b.Fatal(n, err)
		}
		_ = res.Body.Close()
		return time.Since(began)
	}
	var took [len(handlers)]time.Duration
	b.SetBytes(int64(len(page)))
	for b.Loop() {
		for i := range handlers {
			took[i] += fetch(i)
		}
	}
	b.ReportMetric(float64(took[ours])/float64(took[plain]), "x-unrewritten")
	b.ReportMetric(float64(took[ours])/float64(took[bare]), "x-bare")
}
