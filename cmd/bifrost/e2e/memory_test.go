package e2e_test

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// soak is set by `make soak`: the tests of memory and of early answers have their full size, and take minutes.
var soak = flag.Bool("soak", false, "500 transfers of 10 MB, 10,000 idle streams and a million requests, instead of a few")

// transferBound is what one transfer under way may add to the process: its two connections with their goroutines and buffers,
// one buffer of 32 KiB, as much garbage again before it is collected, and what the last round's have left.
const transferBound = 256 << 10

// newQuietSite is a site whose upstream is another than the provider, with one connection, of acme, and no line per request.
func newQuietSite(t *testing.T, upstream string) *replica {
	t.Helper()
	s := newSite(t, newProvider(t, authflowtest.Config{Lifetime: 12 * time.Hour}))
	s.replace("upstream: "+s.idp.BaseURL+"/api", "upstream: "+upstream)
	s.replace("{listen: OPS}", "{listen: OPS, pprof: true}")
	s.yaml += "log: {requests: false}\n"
	r := s.start()
	r.adopt("acme")
	return r
}

// resident is the process's memory in bytes: now, and at most since the last forgetPeak.
func (r *replica) resident() (now, peak int64) {
	r.t.Helper()
	status, err := os.ReadFile(r.proc("status"))
	require.NoError(r.t, err)
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), ":")
		kib, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64) // other lines are no numbers
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	require.NotZero(r.t, now)
	return now, peak
}

// forgetPeak starts the measurement of the peak anew.
func (r *replica) forgetPeak() {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.proc("clear_refs"), []byte("5"), 0))
}

func (r *replica) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(r.cmd.Process.Pid), name)
}

// meeting makes that many goroutines wait for one another.
type meeting struct {
	sync.WaitGroup
}

func (m *meeting) arrive() {
	m.Done()
	m.Wait()
}

// TestMemoryStaysFlatUnderTransfers has hundreds of downloads, then uploads, under way at the same time: all have begun before
// the first may go on.
func TestMemoryStaysFlatUnderTransfers(t *testing.T) {
	few, many, size := 20, 60, int64(1<<20)
	if *soak {
		few, many, size = 100, 500, 10<<20
	}
	var started *meeting
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		block := make([]byte, 32<<10)
		if req.Method == http.MethodPost {
			n, _ := io.ReadFull(req.Body, block)
			started.arrive()
			rest, _ := io.Copy(io.Discard, req.Body) // what is missing shows in the answer
			_, _ = fmt.Fprint(w, int64(n)+rest)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = w.Write(block)
		_ = http.NewResponseController(w).Flush()
		started.arrive()
		for sent := int64(len(block)); sent < size; sent += int64(len(block)) {
			_, _ = w.Write(block)
		}
	}))
	t.Cleanup(upstream.Close)
	r := newQuietSite(t, upstream.URL)
	r.client.Timeout = 10 * time.Minute
	base, _ := r.resident()
	var first int64
	for round, n := range []int{few, many, many, many} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			started = new(meeting)
			started.Add(n)
			r.forgetPeak()
			took := r.transfers(n, method, size)
			_, peak := r.resident()
			kept := int64(r.heap())
			t.Logf("round %d: %d × %s of %d MiB in %v: resident at most %.1f MiB, %.1f KiB for each; afterwards a heap of %.1f MiB",
				round, n, method, size>>20, took.Round(time.Millisecond), mib(peak), float64(peak-base)/float64(n)/1024, mib(kept))
			require.LessOrEqual(t, peak-base, int64(n*transferBound)+8<<20, "resident memory for %d transfers", n)
			if round == 1 {
				first = max(first, kept)
			}
			if round > 1 {
				require.LessOrEqual(t, kept, first+first/5, "more is kept from round to round")
			}
		}
	}
	require.Zero(t, r.metric("bifrost_requests_in_flight"))
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// transfers runs that many at the same time and returns how long all took.
func (r *replica) transfers(n int, method string, size int64) time.Duration {
	r.t.Helper()
	began := time.Now()
	var group sync.WaitGroup
	for range n {
		req := r.proxied("acme", "/graph/file")
		if method == http.MethodPost {
			req.Method, req.Body, req.ContentLength = method, io.NopCloser(io.LimitReader(zeros{}, size)), size
		}
		group.Go(func() {
			res, err := r.client.Do(req)
			if err != nil {
				r.t.Error(err)
				return
			}
			defer res.Body.Close()
			moved, err := io.Copy(io.Discard, res.Body)
			if method == http.MethodPost {
				moved = size + moved - int64(len(fmt.Sprint(size))) // the answer is the number of bytes
			}
			if err != nil || res.StatusCode != http.StatusOK || moved != size {
				r.t.Errorf("%s: %d, %d bytes, %v", method, res.StatusCode, moved, err)
			}
		})
	}
	group.Wait()
	require.False(r.t, r.t.Failed())
	return time.Since(began)
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
