package proxy

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// withIssuer lets callers in with the issuer's JWTs, beside the bench's own key.
func withIssuer(i *keyIssuer, changes ...func(*JWTIssuer)) change {
	return onConfig(func(c *Config) {
		one := i.config()
		for _, apply := range changes {
			apply(&one)
		}
		c.JWT = append(c.JWT, one)
	})
}

// bearer sends a JWT in place of the bench's key, and no org.
func (b *bench) bearer(t *testing.T, token string, headers ...string) (*http.Response, string) {
	t.Helper()
	return b.get(t, "/graph/x", append([]string{"Authorization: Bearer " + token, "X-Org-ID: "}, headers...)...)
}

func newRSAKey(t testing.TB, id string, algorithm jose.SignatureAlgorithm) signingKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return signingKey{id, algorithm, key}
}

func TestAJWTNamesItsCallerAndOrg(t *testing.T) {
	key, rs := newSigningKey(t, "one"), newRSAKey(t, "two", jose.RS256)
	i := newKeyIssuer(key, rs).serve(t)
	b := start(t, nil, withIssuer(i))
	for _, k := range []signingKey{key, rs} {
		token := i.token(t, k, nil)
		for range 2 { // verified, and remembered
			res, body := b.bearer(t, token)
			require.Equal(t, 200, res.StatusCode, body)
			require.Equal(t, []string{tokenOf("acme")}, b.last(t).Header["Authorization"], "the JWT stays here")
		}
	}
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 200, res.StatusCode, "keys go on counting")
	require.EqualValues(t, 1, i.fetches.Load())
	require.NotContains(t, b.logs.String(), "CANARY")
	require.NotContains(t, b.logs.String(), "eyJ")
}

// Each is refused with the bytes that a wrong key is refused with, and nothing reaches the upstream.
func TestJWTsThatProveNothing(t *testing.T) {
	key, rs, stranger := newSigningKey(t, "one"), newRSAKey(t, "rsa", jose.RS256), newSigningKey(t, "one")
	i := newKeyIssuer(key, rs).serve(t)
	b := start(t, nil, withIssuer(i))
	now := time.Now().Unix()
	forged := func(header, payload string) string { return text64(header) + "." + text64(payload) + "." }
	hmac := func(secret []byte) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: secret, KeyID: "rsa"}}, nil)
		require.NoError(t, err)
		return compact(t, signer, i.claimsOf(nil))
	}
	der, err := x509.MarshalPKIXPublicKey(rs.key.Public())
	require.NoError(t, err)
	jwk, err := json.Marshal(rs.public())
	require.NoError(t, err)
	good := i.token(t, key, nil)
	parts := strings.Split(good, ".")
	for name, token := range map[string]string{
		"alg none":                    forged(`{"alg":"none","kid":"one"}`, i.claimsOf(nil)),
		"alg None":                    forged(`{"alg":"None","kid":"one"}`, i.claimsOf(nil)),
		"alg none with a signature":   forged(`{"alg":"none","kid":"one"}`, i.claimsOf(nil)) + parts[2],
		"no alg":                      forged(`{"kid":"one"}`, i.claimsOf(nil)) + parts[2],
		"HS256 by the public key PEM": hmac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"HS256 by the public key DER": hmac(der),
		"HS256 by the public key JWK": hmac(jwk),
		"RS512, which is not listed":  signingKey{"rsa", jose.RS512, rs.key}.sign(t, i.claimsOf(nil), nil),
		"another's key of this kid":   stranger.sign(t, i.claimsOf(nil), nil),
		"unknown kid":                 signingKey{"three", jose.ES256, stranger.key}.sign(t, i.claimsOf(nil), nil),
		"kid that is a path":          signingKey{"../../dev/null", jose.ES256, stranger.key}.sign(t, i.claimsOf(nil), nil),
		"kid that is SQL":             signingKey{"x' UNION SELECT 'k", jose.ES256, stranger.key}.sign(t, i.claimsOf(nil), nil),
		"kid that is a URL":           signingKey{i.url + "/keys", jose.ES256, stranger.key}.sign(t, i.claimsOf(nil), nil),
		"kid of the other algorithm":  signingKey{"rsa", jose.ES256, stranger.key}.sign(t, i.claimsOf(nil), nil),
		"embedded jwk":                signingKey{"", jose.ES256, stranger.key}.sign(t, i.claimsOf(nil), map[jose.HeaderKey]any{"jwk": stranger.public()}),
		"embedded jwk of a known kid": stranger.sign(t, i.claimsOf(nil), map[jose.HeaderKey]any{"jwk": stranger.public()}),
		"jku":                         stranger.sign(t, i.claimsOf(nil), map[jose.HeaderKey]any{"jku": "https://evil.test/keys"}),
		"x5u":                         stranger.sign(t, i.claimsOf(nil), map[jose.HeaderKey]any{"x5u": "https://evil.test/cert"}),
		"crit":                        key.sign(t, i.claimsOf(nil), map[jose.HeaderKey]any{"crit": []string{"exp"}, "exp": 1}),
		"crit that jose knows":        key.sign(t, i.claimsOf(nil), map[jose.HeaderKey]any{"crit": []string{"b64"}, "b64": true}),
		"audience of another":         i.token(t, key, map[string]any{"aud": "other"}),
		"audience that begins so":     i.token(t, key, map[string]any{"aud": jwtAudience + "/"}),
		"audience in other case":      i.token(t, key, map[string]any{"aud": "Bifrost"}),
		"no audience":                 i.token(t, key, map[string]any{"aud": nil}),
		"audience that is no text":    i.token(t, key, map[string]any{"aud": []any{jwtAudience, 1}}),
		"audience inside an object":   i.token(t, key, map[string]any{"aud": map[string]any{"aud": jwtAudience}}),
		"expired":                     i.token(t, key, map[string]any{"exp": now - 31}),
		"no exp":                      i.token(t, key, map[string]any{"exp": nil}),
		"exp that is text":            i.token(t, key, map[string]any{"exp": "99999999999"}),
		"exp that is no time":         i.token(t, key, map[string]any{"exp": 1e300}),
		"exp before all time":         i.token(t, key, map[string]any{"exp": -1}),
		"future nbf":                  i.token(t, key, map[string]any{"nbf": now + 90}),
		"nbf that is text":            i.token(t, key, map[string]any{"nbf": "0"}),
		"nbf that is no time":         i.token(t, key, map[string]any{"nbf": 1e300}),
		"iat before all time":         i.token(t, key, map[string]any{"iat": -1}),
		"future iat":                  i.token(t, key, map[string]any{"iat": now + 90}),
		"other issuer":                i.token(t, key, map[string]any{"iss": "https://other.test"}),
		"issuer with a slash":         i.token(t, key, map[string]any{"iss": i.url + "/"}),
		"issuer in other case":        i.token(t, key, map[string]any{"iss": strings.ToUpper(i.url)}),
		"list of issuers":             i.token(t, key, map[string]any{"iss": []string{i.url}}),
		"no issuer":                   i.token(t, key, map[string]any{"iss": nil}),
		"no subject":                  i.token(t, key, map[string]any{"sub": nil}),
		"subject that is no text":     i.token(t, key, map[string]any{"sub": 7}),
		"endless subject":             i.token(t, key, map[string]any{"sub": strings.Repeat("s", 513)}),
		"claim that stands twice":     key.sign(t, strings.Replace(i.claimsOf(nil), `"tid":"acme"`, `"tid":"acme","tid":"globex"`, 1), nil),
		"nested claim twice":          key.sign(t, strings.Replace(i.claimsOf(nil), `"tid":`, `"x":{"a":1,"a":2},"tid":`, 1), nil),
		"claims that are a list":      key.sign(t, `[]`, nil),
		"claims that are null":        key.sign(t, `null`, nil),
		"claims that are no UTF-8":    key.sign(t, strings.Replace(i.claimsOf(nil), "acme", "acme\xff", 1), nil),
		"claims of somebody else":     parts[0] + "." + text64(i.claimsOf(map[string]any{"tid": "globex"})) + "." + parts[2],
		"cut signature":               good[:len(good)-8],
		"no signature":                parts[0] + "." + parts[1] + ".",
		"four parts":                  good + ".x",
		"longer than a token can be":  i.token(t, key, map[string]any{"x": strings.Repeat("x", maxJWT)}),
	} {
		t.Run(name, func(t *testing.T) {
			want, wantBody := b.bearer(t, "CANARY-wrong-key", "X-Request-ID: same")
			before := len(b.requests())
			res, body := b.bearer(t, token, "X-Request-ID: same")
			require.Equal(t, 401, res.StatusCode)
			require.Equal(t, "caller_unauthenticated", res.Header.Get("X-Bifrost-Error"))
			for _, h := range []http.Header{want.Header, res.Header} {
				h.Del("Date")
			}
			require.Equal(t, want.Header, res.Header)
			require.Equal(t, wantBody, body)
			require.Len(t, b.requests(), before)
		})
	}
	require.NotContains(t, b.logs.String(), "CANARY")
	require.NotContains(t, b.logs.String(), "eyJ")
	require.LessOrEqual(t, i.fetches.Load(), int64(3), "unknown keys must not have the key set read for each")
}

func text64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestWhereAJWTCounts(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i))
	token := i.token(t, key, nil)
	for name, row := range map[string]struct {
		headers []string
		status  int
	}{
		"bearer":                  {[]string{"Authorization: Bearer " + token}, 200},
		"bearer in other case":    {[]string{"Authorization: bearer  " + token}, 200},
		"token":                   {[]string{"Authorization: token " + token}, 401},
		"basic":                   {[]string{basic("x", token)}, 401},
		"own header":              {[]string{"Authorization: ", "X-Bifrost-Key: " + token}, 401},
		"own header with a key":   {[]string{"Authorization: Bearer x.y.z", "X-Bifrost-Key: " + callerKey, "X-Org-ID: acme"}, 200},
		"own header, wrong, wins": {[]string{"Authorization: Bearer " + token, "X-Bifrost-Key: wrong"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			res, _ := b.get(t, "/graph/x", append([]string{"X-Org-ID: "}, row.headers...)...)
			require.Equal(t, row.status, res.StatusCode)
		})
	}
}

func TestClocksMayDifferByHalfAMinute(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i))
	now := time.Now().Unix()
	for _, changes := range []map[string]any{
		{"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}, {"nbf": nil, "iat": nil}, {"nbf": 0, "iat": 0}, {"exp": float64(now) + 60.5},
		{"aud": []string{"other", jwtAudience}},
		{"x": strings.Repeat("x", 10<<10)},
	} {
		res, body := b.bearer(t, i.token(t, key, changes))
		require.Equal(t, 200, res.StatusCode, "%v: %s", changes, body)
	}
}

func TestAnyAsymmetricAlgorithmThatIsListedCounts(t *testing.T) {
	key := newRSAKey(t, "one", jose.PS384)
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i, func(j *JWTIssuer) { j.Algorithms = []string{"PS384"} }))
	res, body := b.bearer(t, i.token(t, key, nil))
	require.Equal(t, 200, res.StatusCode, body)
	res, _ = b.bearer(t, i.token(t, signingKey{"one", jose.RS256, key.key}, nil))
	require.Equal(t, 401, res.StatusCode)
}

func TestWithoutKeysOfCallersAJWTIsAskedForAllTheSame(t *testing.T) {
	key := newSigningKey(t, "one")
	i := newKeyIssuer(key).serve(t)
	b := start(t, nil, withIssuer(i), onConfig(func(c *Config) { c.Callers = nil }))
	res, _ := b.get(t, "/graph/x", "Authorization: ")
	require.Equal(t, 401, res.StatusCode)
	res, _ = b.bearer(t, i.token(t, key, nil))
	require.Equal(t, 200, res.StatusCode)
}

func TestBadIssuersAreRefusedAtStart(t *testing.T) {
	good := JWTIssuer{Issuer: "https://issuer.test", Audience: []string{"a"}}
	with := func(edit func(*JWTIssuer)) []JWTIssuer {
		bad := good
		edit(&bad)
		return []JWTIssuer{bad}
	}
	subject := func(s ...Subject) []Caller { return []Caller{{Name: "a", Subjects: s}} }
	for name, cfg := range map[string]Config{
		"no issuer":                {JWT: with(func(j *JWTIssuer) { j.Issuer = "" })},
		"no audience":              {JWT: with(func(j *JWTIssuer) { j.Audience = nil })},
		"symmetric":                {JWT: with(func(j *JWTIssuer) { j.Algorithms = []string{"RS256", "HS256"} })},
		"none":                     {JWT: with(func(j *JWTIssuer) { j.Algorithms = []string{"none"} })},
		"no algorithm":             {JWT: with(func(j *JWTIssuer) { j.Algorithms = []string{} })},
		"twice":                    {JWT: []JWTIssuer{good, good}},
		"subject without issuer":   {Callers: subject(Subject{"https://issuer.test", "s"})},
		"subject of another":       {JWT: []JWTIssuer{good}, Callers: subject(Subject{"https://other.test", "s"})},
		"subject that is empty":    {JWT: []JWTIssuer{good}, Callers: subject(Subject{"https://issuer.test", ""})},
		"subject that is nobody's": {JWT: []JWTIssuer{good}, Callers: subject()},
		"subject there twice":      {JWT: []JWTIssuer{good}, Callers: subject(Subject{"https://issuer.test", "s"}, Subject{"https://issuer.test", "s"})},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Broker = &fakeBroker{}
			_, err := New(cfg)
			require.Error(t, err)
		})
	}
}
