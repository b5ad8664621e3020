package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func limited(l Limits) change { return onRoute(func(r *Route) { r.Limits = l }) }

// twoCallers adds a caller "others" with the key "CANARY-others", who may not use org forbidden.
var twoCallers = onConfig(func(c *Config) {
	c.Callers = append(c.Callers, Caller{
		Name: "others", Key: func() string { return "CANARY-others" }, Orgs: []string{"acme", "globex"}, Integrations: []string{"*"},
	})
})

// requireRefused asserts a refusal and returns after how many seconds it says to come again.
func requireRefused(t *testing.T, res *http.Response, body string) int {
	t.Helper()
	requireProblem(t, res, body, 429, "rate_limited")
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, seconds, 1)
	return seconds
}

func TestOneOrgCannotExhaustAnIntegration(t *testing.T) {
	b := start(t, nil, limited(Limits{PerOrg: Quota{Rate: 0.01, Burst: 20}}))
	var flood sync.WaitGroup
	for range 4 {
		flood.Go(func() {
			for range 50 {
				b.get(t, "/graph/x", "X-Org-ID: globex")
			}
		})
	}
	for range 20 {
		res, body := b.get(t, "/graph/x")
		require.Equal(t, 200, res.StatusCode, body)
	}
	flood.Wait()
	res, body := b.get(t, "/graph/x", "X-Org-ID: globex")
	require.Greater(t, requireRefused(t, res, body), 90)
	require.Contains(t, body, `"org":"globex"`)
	require.Contains(t, body, "This org is over its rate")
	res, _ = b.get(t, "/graph/x", "X-Org-ID: ", "X-Org-Scope: global")
	require.Equal(t, 200, res.StatusCode, "the global connection has a share of its own")
	require.Len(t, b.requests(), 41)
	require.EqualValues(t, 41, b.broker.asked.Load(), "nobody is asked for a token that is not used")
	b.events(t, 222)
	require.Equal(t, 181.0, testutil.ToFloat64(b.proxy.metrics.errors.WithLabelValues("Microsoft_Graph", "rate_limited")))
}

func TestOneCallerCannotExhaustAnIntegration(t *testing.T) {
	b := start(t, nil, twoCallers, limited(Limits{PerCaller: Quota{Rate: 0.01, Burst: 5}}))
	for i := range 20 {
		res, body := b.get(t, "/graph/x", "X-Org-ID: org-"+fmt.Sprint(i))
		if i >= 5 {
			requireRefused(t, res, body)
			require.Contains(t, body, "This caller is over its rate")
		}
	}
	for range 5 {
		res, body := b.get(t, "/graph/x", "Authorization: Bearer CANARY-others")
		require.Equal(t, 200, res.StatusCode, body)
	}
}

func TestWithoutCallersThereIsNoLimitPerCaller(t *testing.T) {
	b := start(t, nil, onConfig(func(c *Config) { c.Callers = nil }), limited(Limits{PerCaller: Quota{Rate: 0.01}}))
	for range 5 {
		res, _ := b.get(t, "/graph/x")
		require.Equal(t, 200, res.StatusCode)
	}
}

// A caller without rights could otherwise take an org's share, and would learn of it.
func TestWhatIsForbiddenCostsNothingAndStaysForbidden(t *testing.T) {
	b := start(t, nil, twoCallers, limited(Limits{PerOrg: Quota{Rate: 0.01, Burst: 1}}), onRoute(func(r *Route) {
		r.Deny = []string{"* /denied"}
		r.MaxBody = 10
	}))
	for range 3 {
		res, body := b.get(t, "/graph/x", "X-Org-ID: initech", "Authorization: Bearer CANARY-others")
		requireProblem(t, res, body, 403, "caller_forbidden")
		res, body = b.get(t, "/graph/denied", "X-Org-ID: initech")
		requireProblem(t, res, body, 403, "caller_forbidden")
		res, body = b.get(t, "/graph/x", "X-Org-ID: initech", "Authorization: Bearer wrong")
		requireProblem(t, res, body, 401, "caller_unauthenticated")
		res, body = b.do(t, b.request(t, "POST", "/graph/x", strings.Repeat("x", 11), "X-Org-ID: initech"))
		requireProblem(t, res, body, 413, "body_too_large")
	}
	res, _ := b.get(t, "/graph/x", "X-Org-ID: initech")
	require.Equal(t, 200, res.StatusCode)
	res, body := b.get(t, "/graph/x", "X-Org-ID: initech")
	requireRefused(t, res, body)
	res, body = b.get(t, "/graph/x", "X-Org-ID: initech", "Authorization: Bearer CANARY-others")
	requireProblem(t, res, body, 403, "caller_forbidden")
}

// trickling is an upstream that answers with the first byte of two, and with the second when it may. A request for /abort
// breaks off there.
func trickling(next chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/quick" {
			return
		}
		_, _ = io.WriteString(w, "a")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
		case <-r.Context().Done():
		}
		if r.URL.Path == "/abort" {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "b")
	}
}

// open sends a request and returns once the answer has begun.
func (b *bench) open(t *testing.T, target string, headers ...string) *http.Response {
	t.Helper()
	res, err := b.front.Client().Transport.RoundTrip(b.request(t, "GET", target, "", headers...))
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode)
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func TestARequestIsUnderWayUntilItEnds(t *testing.T) {
	for _, limits := range []Limits{{PerOrg: Quota{Concurrent: 1}}, {PerCaller: Quota{Concurrent: 1}}, {Concurrent: 1}} {
		next := make(chan struct{})
		b := start(t, trickling(next), limited(limits))
		busy := func() bool {
			res, body := b.get(t, "/graph/quick")
			if res.StatusCode == 200 {
				return false
			}
			if limits.Concurrent > 0 {
				requireProblem(t, res, body, 503, "overloaded")
			} else {
				require.Equal(t, 1, requireRefused(t, res, body))
			}
			return true
		}
		free := func() bool { return !busy() }

		whole := b.open(t, "/graph/x")
		require.True(t, busy())
		require.True(t, busy(), "what is refused gives nothing back")
		next <- struct{}{}
		got, err := io.ReadAll(whole.Body)
		require.NoError(t, err)
		require.Equal(t, "ab", string(got))
		require.Eventually(t, free, 5*time.Second, time.Millisecond)

		broken := b.open(t, "/graph/abort")
		require.True(t, busy())
		next <- struct{}{}
		_, err = io.ReadAll(broken.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.Eventually(t, free, 5*time.Second, time.Millisecond, "after an answer that broke off")

		left := b.open(t, "/graph/x")
		require.True(t, busy())
		require.NoError(t, left.Body.Close())
		require.Eventually(t, free, 5*time.Second, time.Millisecond, "after a caller that went away")

		b.broker.token = func(context.Context, tokenstore.Slot) (authflow.Credential, error) {
			return authflow.Credential{}, authflow.ErrNotConnected
		}
		for range 3 {
			res, body := b.get(t, "/graph/x")
			requireProblem(t, res, body, 424, "not_connected")
		}
	}
}

func TestAWebSocketIsUnderWayUntilItIsClosed(t *testing.T) {
	b := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echoing(w, r)
		}
	}, limited(Limits{PerOrg: Quota{Concurrent: 1}}), onRoute(func(r *Route) { r.WebSocket = true }))
	conn, answers := b.dialed(t)
	_, err := io.WriteString(conn, line("GET", "/graph/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: key"))
	require.NoError(t, err)
	res, err := http.ReadResponse(answers, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	refused, body := b.get(t, "/graph/x")
	requireRefused(t, refused, body)
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool {
		res, _ := b.get(t, "/graph/x")
		return res.StatusCode == 200
	}, 5*time.Second, time.Millisecond)
}

func TestTheProcessTakesNoMoreThanItMay(t *testing.T) {
	next := make(chan struct{})
	b := start(t, trickling(next), onConfig(func(c *Config) { c.MaxConcurrent = 2 }))
	first := b.open(t, "/graph/x")
	b.open(t, "/graph/x", "X-Org-ID: globex")
	for _, target := range []string{"/graph/quick", "/graph/../x", "/nowhere"} { // before anything else is looked at
		res, body := b.get(t, target, "Authorization: Bearer wrong")
		requireProblem(t, res, body, 503, "overloaded")
	}
	require.Equal(t, 3.0, testutil.ToFloat64(b.proxy.metrics.errors.WithLabelValues("", "overloaded")))
	require.Len(t, b.events(t, 3), 3)
	next <- struct{}{}
	_, err := io.ReadAll(first.Body)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		res, _ := b.get(t, "/graph/quick")
		return res.StatusCode == 200
	}, 5*time.Second, time.Millisecond)
}

// A reload makes a new Proxy. An org that could provoke one would otherwise have a fresh share with each.
func TestAReloadForgetsNothingThatIsUsed(t *testing.T) {
	usage, next := &Usage{}, make(chan struct{})
	loaded := func(concurrent int) *bench {
		return start(t, trickling(next), onConfig(func(c *Config) { c.Usage = usage }),
			limited(Limits{PerOrg: Quota{Rate: 0.01, Burst: 4, Concurrent: concurrent}}))
	}
	old := loaded(1)
	underWay := old.open(t, "/graph/x")
	fresh := loaded(1)
	res, body := fresh.get(t, "/graph/quick")
	require.Contains(t, body, "under way")
	requireRefused(t, res, body)
	changed := loaded(2)
	res, _ = changed.get(t, "/graph/quick")
	require.Equal(t, 200, res.StatusCode, "a change applies at once")

	next <- struct{}{}
	_, err := io.ReadAll(underWay.Body)
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the old Proxy's request gives back to the new one's share
		res, _ := fresh.get(t, "/graph/quick")
		return res.StatusCode == 200
	}, 5*time.Second, time.Millisecond)
	res, _ = loaded(1).get(t, "/graph/quick")
	require.Equal(t, 200, res.StatusCode)
	res, body = loaded(1).get(t, "/graph/quick")
	requireRefused(t, res, body)
	require.Contains(t, body, "over its rate", "four in all")
}

// asking is an upstream that asks those who ask for /limited to wait.
func asking(retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status := 200
		if s, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil {
			w.Header().Set("Retry-After", retryAfter)
			status = s
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "upstream's own")
	}
}

func TestAnUpstreamsRetryAfterIsHeededForItsOrg(t *testing.T) {
	b := start(t, asking("40"))
	b.broker.token = func(_ context.Context, slot tokenstore.Slot) (authflow.Credential, error) {
		slot.Org = tokenstore.Global // whose credential it was does not matter
		return authflow.NewCredential(slot, tokenOf(slot.Org)), nil
	}
	res, body := b.get(t, "/graph/429")
	require.Equal(t, 429, res.StatusCode)
	require.Equal(t, "upstream's own", body)
	require.Equal(t, "40", res.Header.Get("Retry-After"))
	require.Empty(t, res.Header.Get("X-Bifrost-Error"))

	asked := b.broker.asked.Load()
	res, body = b.get(t, "/graph/x")
	require.InDelta(t, 40, requireRefused(t, res, body), 5)
	require.Contains(t, body, "The upstream has asked this org to wait.")
	require.Len(t, b.requests(), 1)
	require.Equal(t, asked, b.broker.asked.Load())
	for _, other := range []string{"X-Org-ID: globex", "X-Org-Scope: global"} {
		headers := []string{other}
		if strings.HasPrefix(other, "X-Org-Scope") {
			headers = append(headers, "X-Org-ID: ")
		}
		res, _ = b.get(t, "/graph/x", headers...)
		require.Equal(t, 200, res.StatusCode, other)
	}
}

func TestAnUpstreamsRetryAfterEnds(t *testing.T) {
	b := start(t, asking("1"))
	b.get(t, "/graph/429")
	res, body := b.get(t, "/graph/x")
	require.Equal(t, 1, requireRefused(t, res, body))
	require.Eventually(t, func() bool {
		res, _ := b.get(t, "/graph/x")
		return res.StatusCode == 200
	}, 5*time.Second, 20*time.Millisecond)
}

func TestOnlyA429AsksToWait(t *testing.T) {
	for name, row := range map[string]struct{ target, retryAfter string }{
		"unavailable":    {"/graph/503", "40"},
		"without a time": {"/graph/429", ""},
		"nonsense":       {"/graph/429", "-1"},
	} {
		b := start(t, asking(row.retryAfter))
		b.get(t, row.target)
		res, _ := b.get(t, "/graph/x")
		require.Equal(t, 200, res.StatusCode, name)
	}
}

func TestAnUpstreamsRetryAfterCanBeIgnored(t *testing.T) {
	usage := &Usage{}
	shared := onConfig(func(c *Config) { c.Usage = usage })
	ignoring := limited(Limits{IgnoreRetryAfter: true})
	b := start(t, asking("40"), shared, ignoring)
	b.get(t, "/graph/429")
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 200, res.StatusCode)

	heeding := start(t, asking("40"), shared)
	res, _ = heeding.get(t, "/graph/429")
	require.Empty(t, res.Header.Get("X-Bifrost-Error"), "what was ignored is not remembered")
	res, body := heeding.get(t, "/graph/x")
	requireRefused(t, res, body)
	res, _ = b.get(t, "/graph/x")
	require.Equal(t, 200, res.StatusCode, "a pause that began before it was ignored")
}

func TestImpossibleLimitsAreRefused(t *testing.T) {
	_, err := New(Config{Broker: &fakeBroker{}, Routes: []Route{{
		Integration: "Graph", Prefix: "/graph", Limits: Limits{Concurrent: -1},
		Target: func(tokenstore.Org) (Target, error) { return Target{}, nil },
	}}})
	require.ErrorContains(t, err, "integration Graph: a limit is negative")
}
