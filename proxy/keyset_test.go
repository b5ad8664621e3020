package proxy

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// jwtRig are callers by JWT without a network, in the time of a bubble.
type jwtRig struct {
	*jwtCallers
	issuer   *keyIssuer
	logs     syncBuffer
	registry *prometheus.Registry
	sets     *KeySets
}

// inBubble runs a test of an issuer that publishes keys.
func inBubble(t *testing.T, test func(t *testing.T, rig *jwtRig), keys ...signingKey) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		rig := &jwtRig{issuer: newKeyIssuer(keys...), registry: prometheus.NewRegistry()}
		log := slog.New(slog.NewJSONHandler(&rig.logs, nil))
		rig.sets = NewKeySets(rig.registry, log)
		rig.sets.client = newKeyClient(rig.issuer)
		var err error
		rig.jwtCallers, err = newJWTCallers([]JWTIssuer{rig.issuer.config()}, rig.sets, log)
		require.NoError(t, err)
		test(t, rig)
		rig.sets.Close()
		require.NotContains(t, rig.logs.String(), "CANARY")
	})
}

// counts reports whether a token names a caller now.
func (r *jwtRig) counts(t *testing.T, token string) bool {
	t.Helper()
	return r.caller(t.Context(), token, time.Now()) != nil
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestKeysRotateWhileRunning(t *testing.T) {
	old, fresh := newSigningKey(t, "old"), newSigningKey(t, "new")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		before := rig.issuer.token(t, old, nil)
		require.True(t, rig.counts(t, before))
		pass(time.Second)
		rig.issuer.publish(old, fresh)
		require.True(t, rig.counts(t, rig.issuer.token(t, fresh, nil)), "a key that is not known is looked for at once")
		require.EqualValues(t, 2, rig.issuer.fetches.Load())
		require.True(t, rig.counts(t, before))

		rig.issuer.publish(fresh)
		withdrawn := time.Now()
		for rig.counts(t, before) {
			pass(time.Second)
		}
		require.LessOrEqual(t, time.Since(withdrawn), keysFresh+2*time.Second, "the traffic itself has the keys read again")
		require.True(t, rig.counts(t, rig.issuer.token(t, fresh, nil)))
		pass(keysPause)
		require.False(t, rig.counts(t, before))
	}, old)
}

// Nobody has sent anything for hours: the first token by a key that was withdrawn meanwhile is refused.
func TestAWithdrawnKeyIsRefusedAfterAQuietTime(t *testing.T) {
	old, fresh := newSigningKey(t, "old"), newSigningKey(t, "new")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		token := rig.issuer.token(t, old, map[string]any{"exp": time.Now().Unix() + 100_000})
		require.True(t, rig.counts(t, token))
		rig.issuer.publish(fresh)
		pass(keysIdle + time.Second)
		require.False(t, rig.counts(t, token))
	}, old)
}

// What a key has verified ends with it, however often the set was read in between.
func TestAKeyStaysTheSameFromReadToRead(t *testing.T) {
	key, second, third := newSigningKey(t, "one"), newSigningKey(t, "two"), newSigningKey(t, "three")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		token := rig.issuer.token(t, key, nil)
		require.True(t, rig.counts(t, token))
		rig.issuer.publish(key, second)
		require.True(t, rig.counts(t, rig.issuer.token(t, second, nil)))
		pass(keysPause)
		rig.issuer.publish(second, third)
		require.True(t, rig.counts(t, rig.issuer.token(t, third, nil)))
		require.False(t, rig.counts(t, token))
	}, key)
}

// A key of the same name and another value is another key.
func TestAKeyThatIsReplacedUnderItsNameIsGone(t *testing.T) {
	old, fresh := newSigningKey(t, "one"), newSigningKey(t, "one")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		token := rig.issuer.token(t, old, nil)
		require.True(t, rig.counts(t, token))
		rig.issuer.publish(fresh)
		pass(keysFresh)
		rig.counts(t, token) // has the keys read again
		synctest.Wait()
		require.False(t, rig.counts(t, token))
		require.True(t, rig.counts(t, rig.issuer.token(t, fresh, nil)))
	}, old)
}

func TestAVerifiedTokenEndsWithItsExpiry(t *testing.T) {
	key := newSigningKey(t, "one")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		token := rig.issuer.token(t, key, map[string]any{"exp": time.Now().Unix() + 20})
		require.True(t, rig.counts(t, token))
		pass(20 * time.Second)
		require.Nil(t, rig.verified.find(digestOfJWT(token), time.Now()), "not remembered beyond exp")
		pass(29 * time.Second)
		require.True(t, rig.counts(t, token), "clocks may differ")
		pass(time.Second)
		require.False(t, rig.counts(t, token))
	}, key)
}

func TestUnknownKeysHaveTheSetReadOnceIn10Seconds(t *testing.T) {
	key, stranger := newSigningKey(t, "one"), newSigningKey(t, "two")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		require.True(t, rig.counts(t, rig.issuer.token(t, key, nil)))
		for i := range 1000 {
			stranger.id = fmt.Sprint("kid-", i)
			require.False(t, rig.counts(t, rig.issuer.token(t, stranger, nil)))
			pass(50 * time.Millisecond)
		}
		require.LessOrEqual(t, rig.issuer.fetches.Load(), int64(1+6), "in 50 s, and the first")
		require.True(t, rig.counts(t, rig.issuer.token(t, key, map[string]any{"jti": "another"})))
	}, key)
}

// Many newcomers at once cause one read.
func TestOneReadAtATime(t *testing.T) {
	key := newSigningKey(t, "one")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		rig.issuer.answers(func(w http.ResponseWriter, _ *http.Request) {
			<-time.After(time.Second)
			_, _ = io.WriteString(w, keySetOf(t, key))
		})
		var all sync.WaitGroup
		for i := range 100 {
			token := rig.issuer.token(t, key, map[string]any{"jti": i})
			all.Go(func() {
				if !rig.counts(t, token) {
					t.Error("refused")
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, rig.issuer.fetches.Load())
	})
}

func keySetOf(t *testing.T, keys ...signingKey) string {
	t.Helper()
	w := httptest.NewRecorder()
	newKeyIssuer(keys...).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/keys", nil))
	return w.Body.String()
}

// An issuer that is down at the start keeps nobody but its own callers out, until it is back.
func TestAnIssuerThatIsDownAtTheStart(t *testing.T) {
	key := newSigningKey(t, "one")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		rig.issuer.answers(unavailable)
		token := rig.issuer.token(t, key, nil)
		for range 30 {
			require.False(t, rig.counts(t, token))
			pass(time.Second)
		}
		require.LessOrEqual(t, rig.issuer.fetches.Load(), int64(4))
		require.Equal(t, 1, strings.Count(rig.logs.String(), "cannot be read"), "once a minute")
		require.Contains(t, rig.logs.String(), `"problem":"the answer has status 503","last_read":"never"`)
		rig.issuer.answers(nil)
		pass(keysPause)
		require.True(t, rig.counts(t, token))
		require.Contains(t, rig.logs.String(), "can be read again")
		require.Positive(t, testutil.ToFloat64(rig.sets.fetches.WithLabelValues(rig.issuer.url, "failed")))
		require.Equal(t, 1.0, testutil.ToFloat64(rig.sets.fetches.WithLabelValues(rig.issuer.url, "ok")))
	}, key)
}

func unavailable(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "CANARY-body", http.StatusServiceUnavailable)
}

// Keys that are known serve for a day, at no cost to requests.
func TestAnIssuerThatGoesDownLater(t *testing.T) {
	key, fresh := newSigningKey(t, "one"), newSigningKey(t, "new")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		token := rig.issuer.token(t, key, map[string]any{"exp": time.Now().Add(100 * time.Hour).Unix()})
		require.True(t, rig.counts(t, token))
		rig.issuer.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }) // and slowly
		for at := time.Now(); time.Since(at) < 23*time.Hour; pass(time.Minute) {
			asked := time.Now()
			require.True(t, rig.counts(t, token))
			require.Zero(t, time.Since(asked), "nobody waits")
		}
		require.False(t, rig.counts(t, rig.issuer.token(t, fresh, nil)), "a new key cannot be told from a wrong one")
		pass(time.Hour + keysTime)
		require.False(t, rig.counts(t, token))
		require.Contains(t, rig.logs.String(), "no answer within 5 s")
	}, key)
}

func TestASlowIssuerHoldsARequestFor5SecondsAtMost(t *testing.T) {
	key := newSigningKey(t, "one")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		rig.issuer.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		asked := time.Now()
		require.False(t, rig.counts(t, rig.issuer.token(t, key, nil)))
		require.Equal(t, keysTime, time.Since(asked))
		asked = time.Now()
		require.False(t, rig.counts(t, rig.issuer.token(t, key, nil)))
		require.Zero(t, time.Since(asked), "until the next attempt nobody waits")
	}, key)
}

// However many tokens of unknown keys arrive while an issuer is slow, they hold so many requests and no more.
func TestFewRequestsWaitForASlowIssuer(t *testing.T) {
	key := newSigningKey(t, "one")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		rig.issuer.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		token := rig.issuer.token(t, key, nil)
		began := time.Now()
		var all sync.WaitGroup
		var atOnce atomic.Int64
		for range maxKeyWaits + 10 {
			all.Go(func() {
				rig.counts(t, token)
				if time.Since(began) == 0 {
					atOnce.Add(1)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 10, atOnce.Load())
	}, key)
}

// A key that an issuer lists twice is one key. What the second of two had verified used to outlive its withdrawal, and a token
// without a kid was refused.
func TestAKeyThatIsPublishedTwiceIsOne(t *testing.T) {
	key, second := newSigningKey(t, "one"), newSigningKey(t, "two")
	nameless := key
	nameless.id = ""
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		require.True(t, rig.counts(t, rig.issuer.token(t, nameless, nil)))
		token := rig.issuer.token(t, key, nil)
		require.True(t, rig.counts(t, token))
		pass(keysPause)
		rig.issuer.publish(key, key, second)
		require.True(t, rig.counts(t, rig.issuer.token(t, second, nil)))
		require.True(t, rig.counts(t, token))
		pass(keysPause)
		rig.issuer.publish(second)
		require.False(t, rig.counts(t, rig.issuer.token(t, newSigningKey(t, "three"), nil))) // has the keys read
		require.False(t, rig.counts(t, token))
	}, key, key)
}

// Without a kid a token is taken where only one key can have signed it.
func TestATokenWithoutAKid(t *testing.T) {
	key, other := newSigningKey(t, "one"), newSigningKey(t, "two")
	nameless := key
	nameless.id = ""
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		require.True(t, rig.counts(t, rig.issuer.token(t, nameless, nil)))
	}, key)
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		require.False(t, rig.counts(t, rig.issuer.token(t, nameless, nil)))
	}, key, other)
}

// However many tokens are verified, the table stays as large as it is, and the newest are in it.
func TestVerifiedTokensTakeBoundedMemory(t *testing.T) {
	var table verifiedTable
	now := time.Now()
	key := &publicKey{}
	digest := func(i int) [32]byte { return digestOfJWT(fmt.Sprint(i)) }
	const tokens = 100_000
	for i := range tokens {
		table.put(&verified{digest: digest(i), until: now.Add(time.Hour + time.Duration(i)), key: key}, now)
	}
	kept := 0
	for i := range tokens {
		if table.find(digest(i), now) != nil {
			kept++
		}
	}
	require.Greater(t, kept, 15_000)
	require.LessOrEqual(t, kept, 4096*4)
	require.NotNil(t, table.find(digest(tokens-1), now))
	key.gone.Store(true)
	require.Nil(t, table.find(digest(tokens-1), now))
}
