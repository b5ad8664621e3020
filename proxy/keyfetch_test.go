package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
)

// What an issuer answers cannot do more than fail, and the log says how without quoting it.
func TestAnswersThatAreNoKeySet(t *testing.T) {
	key := newSigningKey(t, "one")
	for name, row := range map[string]struct {
		answer  http.HandlerFunc
		problem string
	}{
		"huge": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(append([]byte(`{"keys":[],"x":"`), bytes.Repeat([]byte("x"), maxKeySet)...)) // cut short
		}, "larger than 1 MiB"},
		"HTML":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>CANARY") }, "no JSON Web Key Set"},
		"no keys": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"error":"CANARY"}`) }, "no JSON Web Key Set"},
		"too many": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat("{},", maxKeys)+`{}]}`)
		}, "more than 200"},
		"error":          {unavailable, "status 503"},
		"not modified":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, "no JSON Web Key Set"},
		"redirect":       {redirected("https://evil.test/keys", key), "redirects to another host"},
		"downgrade":      {redirected("http://issuer.test/keys", key), "redirects to another host"},
		"redirect, ever": {redirected("/keys?", key), "or too often"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, rig *jwtRig) {
				rig.issuer.answers(row.answer)
				require.False(t, rig.counts(t, rig.issuer.token(t, key, nil)))
				require.Contains(t, rig.logs.String(), row.problem)
			}, key)
		})
	}
}

// redirected sends to an address where the keys are good, unless it is the first again.
func redirected(to string, key signingKey) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Scheme+r.URL.Host != "httpsissuer.test" {
			newKeyIssuer(key).ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}
}

func TestDiscoveryThatCannotBeBelieved(t *testing.T) {
	key := newSigningKey(t, "one")
	for name, row := range map[string]struct {
		document map[string]any
		problem  string
	}{
		"of another issuer":    {map[string]any{"issuer": "https://other.test", "jwks_uri": "https://issuer.test/keys"}, "another issuer's"},
		"with a slash more":    {map[string]any{"issuer": "https://issuer.test/", "jwks_uri": "https://issuer.test/keys"}, "another issuer's"},
		"without an issuer":    {map[string]any{"jwks_uri": "https://issuer.test/keys"}, "another issuer's"},
		"without keys":         {map[string]any{"issuer": "https://issuer.test"}, "names no jwks_uri"},
		"with keys in clear":   {map[string]any{"issuer": "https://issuer.test", "jwks_uri": "http://issuer.test/keys"}, "names no jwks_uri with https"},
		"with keys in a file":  {map[string]any{"issuer": "https://issuer.test", "jwks_uri": "file:///keys"}, "names no jwks_uri with https"},
		"with keys of no type": {map[string]any{"issuer": "https://issuer.test", "jwks_uri": 7}, "no discovery document"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, rig *jwtRig) {
				rig.issuer.document = row.document
				require.False(t, rig.counts(t, rig.issuer.token(t, key, nil)))
				require.Contains(t, rig.logs.String(), row.problem)
				require.Zero(t, rig.issuer.fetches.Load())
			}, key)
		})
	}
}

// Keys that are for something else, or too weak, are not there; the others of the set are.
func TestKeysThatAreNotForSignaturesAreNotUsed(t *testing.T) {
	key, other := newSigningKey(t, "one"), newSigningKey(t, "other")
	encryption, algorithm := other.public(), other.public()
	encryption.Use, algorithm.Algorithm = "enc", "ES384"
	text := func(v interface{ MarshalJSON() ([]byte, error) }) string {
		raw, err := v.MarshalJSON()
		require.NoError(t, err)
		return string(raw)
	}
	for name, jwk := range map[string]string{
		"for encryption":        text(encryption),
		"for another algorithm": text(algorithm),
		"a secret":              `{"kty":"oct","kid":"other","k":"Q0FOQVJZ"}`,
		"of an unknown type":    `{"kty":"future","kid":"other"}`,
		"broken":                `{"kty":"EC","kid":"other","crv":"P-256","x":"AA","y":"AA"}`,
		"no object":             `7`,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, rig *jwtRig) {
				rig.issuer.answers(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = fmt.Fprintf(w, `{"keys":[%s,%s]}`, jwk, text(key.public()))
				})
				require.True(t, rig.counts(t, rig.issuer.token(t, key, nil)))
				require.False(t, rig.counts(t, rig.issuer.token(t, other, nil)))
			})
		})
	}
}

func TestAShortRSAKeyIsNotUsed(t *testing.T) {
	for bits, counts := range map[int]bool{1024: false, 2048: true} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		signer := signingKey{"rsa", jose.RS256, key}
		inBubble(t, func(t *testing.T, rig *jwtRig) {
			require.Equal(t, counts, rig.counts(t, rig.issuer.token(t, signer, nil)))
		}, signer)
	}
}
