package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const freshToken = "Bearer CANARY-fresh"

// refusing answers 401 to everything but the fresh token, after reading what it got.
func refusing(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what is missing shows in the echo
	if r.Header.Get("Authorization") != freshToken {
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "their 401")
		return
	}
	_, _ = fmt.Fprintf(w, "%d:%s", len(body), body[:min(len(body), 10)])
}

// renewing makes the bench's broker hand out a fresh token.
func (b *bench) renewing() *atomic.Int64 {
	var replaced atomic.Int64
	b.broker.replace = func(_ context.Context, rejected authflow.Credential) (authflow.Credential, error) {
		replaced.Add(1)
		return authflow.NewCredential(rejected.Slot, freshToken), nil
	}
	return &replaced
}

func TestA401IsReplayedOnceWithANewerToken(t *testing.T) {
	for name, row := range map[string]struct {
		body     string
		chunked  bool
		limit    int64
		replayed bool
	}{
		"no body":                      {"", false, 0, true},
		"small body":                   {"CANARY-body", false, 0, true},
		"small chunked body":           {"CANARY-body", true, 0, true},
		"body of exactly the limit":    {strings.Repeat("x", 64<<10), false, 0, true},
		"chunked body of the limit":    {strings.Repeat("x", 64<<10), true, 0, true},
		"body over the limit":          {strings.Repeat("x", 64<<10+1), false, 0, false},
		"chunked body over the limit":  {strings.Repeat("x", 64<<10+1), true, 0, false},
		"body over a configured limit": {"12345", false, 4, false},
		"replays switched off":         {"1", false, -1, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, refusing, onRoute(func(r *Route) { r.ReplayBodyLimit = row.limit }))
			replaced := b.renewing()
			r := b.request(t, "POST", "/graph/x?q=%20", row.body)
			if row.chunked {
				r.ContentLength = -1
			}
			res, body := b.do(t, r)
			require.EqualValues(t, 1, replaced.Load(), "the next request must find a newer token in any case")
			replays := testutil.ToFloat64(b.proxy.metrics.replays.WithLabelValues("Microsoft_Graph"))
			if !row.replayed {
				require.Equal(t, 401, res.StatusCode)
				require.Equal(t, "their 401", body)
				require.Empty(t, res.Header.Get("X-Bifrost-Error"))
				require.Len(t, b.requests(), 1)
				require.Zero(t, replays)
				return
			}
			require.Equal(t, 200, res.StatusCode)
			require.Equal(t, fmt.Sprintf("%d:%s", len(row.body), row.body[:min(len(row.body), 10)]), body)
			got := b.requests()
			require.Len(t, got, 2)
			require.Equal(t, got[0].RequestURI, got[1].RequestURI)
			require.Equal(t, got[0].ContentLength, got[1].ContentLength)
			require.Equal(t, got[0].Header["X-Request-Id"], got[1].Header["X-Request-Id"])
			require.EqualValues(t, 1, replays)
			require.NotContains(t, b.logs.String(), "CANARY")
		})
	}
}

// A refusal whose body never ends does not keep the replay back.
func TestAnEndlessRefusalIsReplayedToo(t *testing.T) {
	for _, overHTTP2 := range []bool{false, true} {
		handler := func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == tokenOf("acme") {
				w.WriteHeader(http.StatusUnauthorized)
				_ = http.NewResponseController(w).Flush() // the proxy may have gone
				<-r.Context().Done()
			}
		}
		var changes []change
		if overHTTP2 {
			changes = append(changes, overTLS(true))
		}
		b := start(t, handler, changes...)
		b.renewing()
		res, _ := b.get(t, "/graph/x")
		require.Equal(t, 200, res.StatusCode)
	}
}

func TestASecond401PassesThrough(t *testing.T) {
	b := start(t, refusing)
	b.broker.replace = func(_ context.Context, rejected authflow.Credential) (authflow.Credential, error) {
		return authflow.NewCredential(rejected.Slot, "Bearer CANARY-refused-too"), nil
	}
	res, body := b.get(t, "/graph/x")
	require.Equal(t, 401, res.StatusCode)
	require.Equal(t, "their 401", body)
	require.Equal(t, "Bearer", res.Header.Get("WWW-Authenticate"))
	require.Len(t, b.requests(), 2)
}

func TestA401PassesThroughWhereThereIsNoNewerToken(t *testing.T) {
	b := start(t, refusing)
	res, body := b.do(t, b.request(t, "POST", "/graph/x", "body"))
	require.Equal(t, 401, res.StatusCode)
	require.Equal(t, "their 401", body)
	require.Len(t, b.requests(), 1)
}

func TestA401OfABurstIsReportedForEveryRequest(t *testing.T) {
	b := start(t, refusing)
	replaced := b.renewing()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", "/graph/x", ""))
			if err == nil {
				_ = res.Body.Close()
			}
			if err != nil || res.StatusCode != 200 {
				t.Errorf("%v %v", res, err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 20, replaced.Load(), "the Broker makes one refresh of them")
}

// The upstream refuses while the caller is still sending; what the first attempt had read must reach the second.
func TestA401ThatComesBeforeTheBodyIsReplayedWhole(t *testing.T) {
	refused := make(chan struct{})
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == freshToken {
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
			return
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		half := make([]byte, 5)
		_, _ = io.ReadFull(r.Body, half)
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusUnauthorized)
		_ = http.NewResponseController(w).Flush()
		close(refused)
	})
	b.renewing()
	pr, pw := io.Pipe()
	r := b.request(t, "POST", "/graph/x", "")
	r.Body, r.ContentLength = pr, 10
	go func() { // ends with the body
		_, _ = io.WriteString(pw, "first")
		<-refused
		_, _ = io.WriteString(pw, "later")
		_ = pw.Close()
	}()
	res, body := b.do(t, r)
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "firstlater", body)
}

func TestTheNewCredentialDecidesTheTarget(t *testing.T) {
	b := start(t, refusing, func(b *bench, _ *Config, r *Route) {
		r.Target = func(org tokenstore.Org) (Target, error) {
			return Target{BaseURL: b.upstream.URL + "/" + string(org)}, nil
		}
		r.OwnTargets = []tokenstore.Org{"acme"}
	})
	b.broker.replace = func(_ context.Context, rejected authflow.Credential) (authflow.Credential, error) {
		rejected.Slot.Org = tokenstore.Global // the org was disconnected meanwhile
		return authflow.NewCredential(rejected.Slot, freshToken), nil
	}
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, "global", res.Header.Get("X-Bifrost-Connection"))
	got := b.requests()
	require.Equal(t, "/acme/x", got[0].RequestURI)
	require.Equal(t, "/@global/x", got[1].RequestURI)
}
