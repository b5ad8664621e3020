package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// keyIssuer is an issuer of JWTs: it publishes keys, by discovery, and signs.
type keyIssuer struct {
	url     string
	fetches atomic.Int64 // of the key set

	mu        sync.Mutex // guards all below
	published []jose.JSONWebKey
	answer    http.HandlerFunc // in place of the key set; nil: the keys
	document  map[string]any   // in place of the discovery document; nil: a right one
}

// newKeyIssuer is one that publishes the keys.
func newKeyIssuer(keys ...signingKey) *keyIssuer {
	i := &keyIssuer{url: "https://issuer.test"}
	i.publish(keys...)
	return i
}

// serve puts the issuer on a socket of its own.
func (i *keyIssuer) serve(t testing.TB) *keyIssuer {
	t.Helper()
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func (i *keyIssuer) publish(keys ...signingKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = nil
	for _, k := range keys {
		i.published = append(i.published, k.public())
	}
}

// answers has requests for the key set answered by h; nil: with the keys.
func (i *keyIssuer) answers(h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = h
}

func (i *keyIssuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	answer, document, set := i.answer, i.document, jose.JSONWebKeySet{Keys: i.published}
	i.mu.Unlock()
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		if document == nil {
			document = map[string]any{"issuer": i.url, "jwks_uri": i.url + "/keys"}
		}
		_ = json.NewEncoder(w).Encode(document) // a test that reads it notices
	case "/keys":
		i.fetches.Add(1)
		if answer != nil {
			answer(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(set)
	default:
		http.NotFound(w, r)
	}
}

// RoundTrip answers without a network, for the time of a bubble.
func (i *keyIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	i.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// signingKey signs JWTs.
type signingKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	key       crypto.Signer
}

func newSigningKey(t testing.TB, id string) signingKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return signingKey{id, jose.ES256, key}
}

func (k signingKey) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.key.Public(), KeyID: k.id, Use: "sig"}
}

// sign returns a JWT of the payload, with header parameters beside alg and kid.
func (k signingKey) sign(t testing.TB, payload string, header map[jose.HeaderKey]any) string {
	t.Helper()
	opts := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"typ": "JWT"}}
	if k.id != "" {
		opts.ExtraHeaders["kid"] = k.id
	}
	for name, value := range header {
		opts.ExtraHeaders[name] = value
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.algorithm, Key: k.key}, opts)
	require.NoError(t, err)
	return compact(t, signer, payload)
}

func compact(t testing.TB, signer jose.Signer, payload string) string {
	t.Helper()
	jws, err := signer.Sign([]byte(payload))
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

const (
	jwtAudience = "bifrost"
	jwtSubject  = "CANARY-subject"
)

// claimsOf are those of a good token of the issuer, for an hour, with changes; nil removes one.
func (i *keyIssuer) claimsOf(changes map[string]any) string {
	now := time.Now().Unix()
	all := map[string]any{
		"iss": i.url, "sub": jwtSubject, "aud": jwtAudience, "exp": now + 3600, "nbf": now, "iat": now, "tid": "acme",
	}
	for name, value := range changes {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// token is a good token of k, with changes of the claims.
func (i *keyIssuer) token(t testing.TB, k signingKey, changes map[string]any) string {
	t.Helper()
	return k.sign(t, i.claimsOf(changes), nil)
}

// config trusts the issuer, by discovery, with tid for the org.
func (i *keyIssuer) config() JWTIssuer {
	return JWTIssuer{Issuer: i.url, Audience: []string{jwtAudience}, OrgClaim: []string{"tid"}}
}
