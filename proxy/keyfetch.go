package proxy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeySet       = 1 << 20 // bytes of an answer
	maxKeys         = 200     // of an issuer; more are no keys of one
	maxKeyRedirects = 3
)

// publicKey is one that an issuer publishes.
type publicKey struct {
	id        string
	algorithm string // the only one that it is for; empty: every one that fits
	key       interface{ Equal(crypto.PublicKey) bool }
	gone      atomic.Bool // the issuer publishes it no more
}

func (k *publicKey) same(other *publicKey) bool {
	return k.id == other.id && k.algorithm == other.algorithm && k.key.Equal(other.key)
}

// signs reports whether signatures of the algorithm can be the key's. A key is never used for what it is not made for: an RSA
// key is no HMAC secret.
func (k *publicKey) signs(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		return curves[algorithm] != nil && curves[algorithm] == key.Curve
	case ed25519.PublicKey:
		return algorithm == "EdDSA"
	}
	return false
}

// curves are those of RFC 7518 section 3.4.
var curves = map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}

// usableKey returns the key of a JSON Web Key with which signatures can be checked; nil for any other, as RFC 7517 section 5 has it.
func usableKey(raw json.RawMessage) *publicKey {
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(raw) != nil || jwk.Use != "" && jwk.Use != "sig" {
		return nil
	}
	k := &publicKey{id: jwk.KeyID, algorithm: jwk.Algorithm}
	switch key := jwk.Key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > 8192 { // RFC 7518 section 3.3; larger ones take long to check with
			return nil
		}
		k.key = key
	case *ecdsa.PublicKey:
		k.key = key
	case ed25519.PublicKey:
		k.key = key
	default:
		return nil
	}
	return k
}

// keyError says what is wrong with what an issuer answered. It quotes nothing of that.
type keyError string

func (e keyError) Error() string { return string(e) }

// fetch reads an issuer's keys. The ways there are the issuer's own: what it names may be on any host, but not without TLS.
func (ks *KeySets) fetch(from keySource) ([]*publicKey, error) {
	ctx, cancel := context.WithTimeout(context.Background(), keysTime)
	defer cancel()
	at := from.url
	if at == "" {
		var err error
		if at, err = ks.discover(ctx, from.issuer); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	res, err := ks.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // only read
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	return parseKeys(body)
}

func parseKeys(body []byte) ([]*publicKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	switch err := json.Unmarshal(body, &set); {
	case err != nil || set.Keys == nil:
		return nil, keyError("the answer is no JSON Web Key Set")
	case len(set.Keys) > maxKeys:
		return nil, keyError("the key set has more than 200 keys")
	}
	list := []*publicKey{}
	for _, raw := range set.Keys {
		if k := usableKey(raw); k != nil && !slices.ContainsFunc(list, k.same) { // once: each is found again at the next read
			list = append(list, k)
		}
	}
	return list, nil
}

// discover returns where an issuer's keys are by its own document, which must be its own (OpenID Connect Discovery 1.0 section 4.3).
func (ks *KeySets) discover(ctx context.Context, issuer string) (string, error) {
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, ks.client), issuer)
	if _, ok := errors.AsType[*oidc.IssuerMismatchError](err); ok {
		return "", keyError("the discovery document is another issuer's: issuer must be equal to it byte for byte")
	}
	if err != nil {
		if _, ok := errors.AsType[*url.Error](err); ok {
			return "", err
		}
		return "", keyError("the answer is no discovery document")
	}
	var document struct {
		JWKSURL string `json:"jwks_uri"`
	}
	if provider.Claims(&document) != nil || !safeKeysURL(document.JWKSURL) {
		return "", keyError("the discovery document names no jwks_uri with https")
	}
	return document.JWKSURL, nil
}

// safeKeysURL reports whether nobody on the way can change what is read there.
func safeKeysURL(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback())
}

// newKeyTransport goes where the configuration says, whatever the environment says.
func newKeyTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
}

func newKeyClient(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: boundedTransport{transport}, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if first := via[0].URL; len(via) > maxKeyRedirects || req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
			return keyError("the answer redirects to another host, or too often")
		}
		return nil
	}}
}

// boundedTransport lets answers through that are good or redirect, and of their bodies so much as a key set can need.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK && (res.StatusCode < 300 || res.StatusCode > 399) {
		_ = res.Body.Close() // nobody reads it
		return nil, keyError(fmt.Sprintf("the answer has status %d", res.StatusCode))
	}
	res.Body = http.MaxBytesReader(nil, res.Body, maxKeySet)
	return res, nil
}

// CloseIdleConnections is what http.Client looks for.
func (t boundedTransport) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// keyProblem tells why keys could not be read, in words that quote nothing of an answer.
func keyProblem(err error) string {
	if told, ok := errors.AsType[keyError](err); ok {
		return told.Error()
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "the answer is larger than 1 MiB"
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "no answer within 5 s"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the certificate is of an authority that this machine does not trust"
	}
	return causeOf(err)
}
