package authflow

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// accountOf returns a hash that tells whose an ID token is, or nothing if it has no issuer and subject. The signature is not
// checked: the token came from the provider itself over TLS (OpenID Connect Core section 3.1.3.7), and the fingerprint serves
// to notice a change of account, not to let anybody in. At Microsoft the subject differs per application, and tenant and
// object do not.
func accountOf(idToken string) string {
	parts := strings.Split(idToken, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return ""
	}
	var claims struct{ Iss, Tid, Oid, Sub string }
	if json.Unmarshal(payload, &claims) != nil || claims.Iss == "" {
		return ""
	}
	switch {
	case claims.Tid != "" && claims.Oid != "":
		return digest(claims.Iss, "tid", claims.Tid, claims.Oid)
	case claims.Sub != "":
		return digest(claims.Iss, "sub", claims.Sub)
	}
	return ""
}
