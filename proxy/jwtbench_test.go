package proxy

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// warmJWT is a warm proxy that also knows an issuer, and a request of a JWT that has been here before, about as long as Entra's.
func warmJWT(t testing.TB, upstream string) (*Proxy, *http.Request) {
	t.Helper()
	key := newRSAKey(t, "one", jose.RS256)
	issuer := newKeyIssuer(key)
	p := warmProxy(t, upstream, warm{orgs: 1})
	sets := NewKeySets(nil, nil)
	sets.client = newKeyClient(issuer)
	cfg := issuer.config()
	var err error
	p.callers.jwt, err = newJWTCallers([]JWTIssuer{cfg}, sets, p.log)
	require.NoError(t, err)
	token := issuer.token(t, key, map[string]any{"tid": warmOrg(0), "x": strings.Repeat("x", 700)})
	require.NotNil(t, p.callers.jwt.caller(t.Context(), token, time.Now()))
	r := warmRequest(t, 0)
	r.Header.Set("Authorization", "Bearer "+token)
	return p, r
}

func TestAWarmJWTAllocatesNothingAndTakesNoLock(t *testing.T) {
	p, r := warmJWT(t, nowhere)
	p.routes[0].transport.RegisterProtocol("http", answers{})
	expectServed(t, p, r)
	jwt := p.callers.jwt
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	now := time.Now()
	require.Zero(t, testing.AllocsPerRun(100, func() { jwt.caller(t.Context(), token, now) }))

	var all locks
	all.find(reflect.ValueOf(p))
	unlock := all.lock()
	served := make(chan struct{})
	go func() {
		defer close(served)
		expectServed(t, p, r)
	}()
	select {
	case <-served:
		unlock()
	case <-time.After(20 * time.Second):
		unlock()
		require.Fail(t, "a warm request waits for a lock")
	}
}

// BenchmarkJWTAgainstKey reports what a warm request with a JWT costs, as a multiple of the same request with a key, and what
// it allocates beyond that. The two are measured in turns.
func BenchmarkJWTAgainstKey(b *testing.B) {
	p, jwt := warmJWT(b, nowhere)
	p.routes[0].transport.RegisterProtocol("http", answers{})
	key := warmRequest(b, 0)
	runRequest(p, jwt, 500)
	runRequest(p, key, 500)
	var jwtTime, keyTime time.Duration
	for b.Loop() {
		jwtTime += runRequest(p, jwt, 200)
		keyTime += runRequest(p, key, 200)
	}
	b.ReportMetric(float64(jwtTime)/float64(keyTime), "x-key-time")
	b.ReportMetric(testing.AllocsPerRun(500, func() { runRequest(p, jwt, 1) })-testing.AllocsPerRun(500, func() { runRequest(p, key, 1) }), "added-allocs/op")
}

// BenchmarkJWTNew is a token that was not here before: it is read and its RSA signature checked.
func BenchmarkJWTNew(b *testing.B) {
	p, r := warmJWT(b, nowhere)
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.callers.jwt.verify(b.Context(), token, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func runRequest(h http.Handler, r *http.Request, n int) time.Duration {
	w := &discard{}
	began := time.Now()
	for range n {
		w.header = make(http.Header)
		h.ServeHTTP(w, r)
	}
	return time.Since(began)
}
