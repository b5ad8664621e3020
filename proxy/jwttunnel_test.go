package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// jwtTunnel opens a tunnel for the caller that a token names.
func (b *bench) jwtTunnel(t *testing.T, token string) end {
	t.Helper()
	conn, in := b.dialed(t)
	byKey := "X-Bifrost-Key: " + callerKey
	require.Contains(t, handshake, byKey)
	_, err := io.WriteString(conn, strings.Replace(handshake, byKey, "Authorization: Bearer "+token, 1))
	require.NoError(t, err)
	res, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, 101, res.StatusCode)
	return end{conn, in}
}

func TestWhatAReloadDoesToTheTunnelOfAJWT(t *testing.T) {
	key := newSigningKey(t, "one")
	for name, c := range map[string]struct {
		change func(*Config)
		closed bool
	}{
		"nothing": {func(*Config) {}, false},
		"another issuer too": {func(c *Config) {
			c.JWT = append(c.JWT, JWTIssuer{Issuer: "https://other.test", Audience: []string{"a"}})
		}, false},
		"no issuer":           {func(c *Config) { c.JWT = nil }, true},
		"another claim":       {func(c *Config) { c.JWT[0].OrgClaim = []string{"org"} }, true},
		"another audience":    {func(c *Config) { c.JWT[0].Audience = []string{"other"} }, true},
		"rights of a subject": {func(c *Config) { c.Callers[0].Orgs = []string{"globex"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			i := newKeyIssuer(key).serve(t)
			var cfg Config
			b := start(t, echoing, websockets(nil), withIssuer(i), func(_ *bench, c *Config, r *Route) {
				c.KeySets = NewKeySets(nil, nil)
				c.Callers[0].Subjects = []Subject{{i.url, jwtSubject}}
				cfg = *c
				cfg.Routes = []Route{*r}
			})
			b.proxy.tunnels.Follow(b.proxy)
			near := b.jwtTunnel(t, i.token(t, key, nil))
			near.echoes(t)
			cfg.Callers, cfg.JWT = []Caller{cfg.Callers[0]}, []JWTIssuer{cfg.JWT[0]}
			c.change(&cfg)
			if cfg.JWT == nil {
				cfg.Callers[0].Subjects = nil
			}
			next, err := New(cfg)
			require.NoError(t, err)
			next.tunnels.Follow(next)
			if c.closed {
				near.ended(t)
				b.closedBecause(t, byNewRules)
				return
			}
			near.echoes(t)
			require.NotNil(t, next.callers.jwt.caller(t.Context(), i.token(t, key, map[string]any{"jti": 1}), time.Now()))
			require.EqualValues(t, 1, i.fetches.Load(), "a reload forgets no key")
		})
	}
}

func TestATunnelEndsWithItsJWT(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, echoing, websockets(nil), withIssuer(i))
	b.proxy.tunnels.Follow(b.proxy)
	near := b.jwtTunnel(t, i.token(t, key, map[string]any{"exp": time.Now().Unix() - int64(clockLeeway.Seconds()) + 2}))
	near.ended(t)
	b.closedBecause(t, byLifetime)
}

// Whoever has stolen a key can sign for years: a tunnel of such a token used to stay open when the issuer withdrew the key.
func TestATunnelEndsWithTheKeyOfItsJWT(t *testing.T) {
	key, fresh := newSigningKey(t, "one"), newSigningKey(t, "two")
	i := newKeyIssuer(key).serve(t)
	b := start(t, echoing, websockets(nil), withIssuer(i))
	b.proxy.tunnels.Follow(b.proxy)
	near := b.jwtTunnel(t, i.token(t, key, nil))
	near.echoes(t)
	i.publish(fresh)
	require.NotNil(t, b.proxy.callers.jwt.caller(t.Context(), i.token(t, fresh, nil), time.Now())) // has the keys read
	near.ended(t)
	b.closedBecause(t, byLifetime)
}

// Where nothing comes but what is open already, that has the keys read.
func TestAWithdrawnKeyIsNoticedByOpenTunnels(t *testing.T) {
	key, fresh := newSigningKey(t, "one"), newSigningKey(t, "two")
	inBubble(t, func(t *testing.T, rig *jwtRig) {
		c := rig.caller(t.Context(), rig.issuer.token(t, key, nil), time.Now())
		require.NotNil(t, c)
		require.False(t, c.claims.over(time.Now()))
		rig.issuer.publish(fresh)
		for withdrawn := time.Now(); !c.claims.over(time.Now()); pass(time.Second) {
			require.LessOrEqual(t, time.Since(withdrawn), keysFresh+2*time.Second)
		}
	}, key)
}
