package authflow

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// idLeeway is how far our clock may be ahead of the provider's when an ID token's end is looked at.
const idLeeway = time.Minute

// idClaims are the claims of an ID token that we use. It is unreadable where the token is not a JWT that can be decoded.
type idClaims struct {
	Iss, Tid, Oid, Sub string
	Aud, Exp, Nonce    json.RawMessage
	unreadable         bool
}

// readIDToken returns the claims of an ID token; nil if there is none.
func readIDToken(token string) *idClaims {
	if token == "" {
		return nil
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return &idClaims{unreadable: true}
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return &idClaims{unreadable: true}
	}
	var claims idClaims
	if json.Unmarshal(payload, &claims) != nil {
		return &idClaims{unreadable: true}
	}
	return &claims
}

// identity is what the ID token of an answer to a code must agree with.
type identity struct {
	nonce  string // as sent; empty: none was asked for, and an ID token only happens to come
	client string
	issuer string // empty: not compared
}

// faultOf says in our words what is wrong with the ID token for a consent of ours, or nothing (OpenID Connect Core section 3.1.3.7,
// but for the signature: see accountOf). A provider that was asked for one and sends none has nothing wrong: its account is
// unknown. Where none was asked for, only what is there is compared.
func (want identity) faultOf(id *idClaims, now time.Time) string {
	asked := want.nonce != ""
	switch {
	case id == nil, id.unreadable && !asked:
		return ""
	case id.unreadable:
		return "an ID token that cannot be read"
	case asked && subtle.ConstantTimeCompare([]byte(scalarOf(id.Nonce)), []byte(want.nonce)) != 1:
		return "an ID token that was not made for this consent: its nonce is another"
	case (asked || len(id.Aud) > 0) && !slices.Contains(append(scalarsOf(id.Aud), scalarOf(id.Aud)), want.client):
		return "an ID token for another client"
	case (asked || len(id.Exp) > 0) && !now.Add(-idLeeway).Before(unixOf(id.Exp)):
		return "an ID token that has expired"
	case want.issuer != "" && id.Iss != want.issuer:
		return "an ID token of another issuer"
	}
	return ""
}

// unixOf returns the time of a NumericDate (RFC 7519 section 2); what is none lies in the past.
func unixOf(raw json.RawMessage) time.Time {
	var seconds float64
	if json.Unmarshal(raw, &seconds) != nil || seconds < 0 || seconds > 1<<52 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}
