package authflow

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
)

// members are the parameters of a token endpoint's answer that we use, normalised.
type members struct {
	access    string // [\x21-\x7e]{1,16384}, or empty
	refresh   string // [\x20-\x7e]{1,16384}, or empty
	tokenType string // as sent; empty if absent
	expiresIn string // as sent, a number we hope; see lifetimeOf
	scopes    []string
	id        *idClaims // of the ID token; nil if there is none
	account   string    // fingerprint; empty if unknown
	problem   string    // the error code, not checked; "other" if it is no string
	numbers   []string  // Microsoft's error_codes
}

func (m members) bearer() bool { return m.tokenType == "" || strings.EqualFold(m.tokenType, "bearer") }

var errMalformed = errors.New("malformed token answer")

// normalise reads a body whatever its label says: JSON, or a form. A byte order mark before and anything after the JSON
// object are ignored, and numbers are as good as strings. A body that is not complete may be JSON alone, which shows its own end.
// It returns errMalformed for what it cannot trust as a whole; an answer without a token or an error is no error.
func normalise(body []byte, complete bool) (members, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\ufeff")))
	var raw map[string]json.RawMessage
	err := errMalformed
	switch {
	case bytes.HasPrefix(body, []byte("{")):
		raw, err = readObject(body)
	case complete:
		raw, err = readForm(body)
	}
	if err != nil {
		return members{}, err
	}
	m := members{
		access: scalarOf(raw["access_token"]), refresh: scalarOf(raw["refresh_token"]), tokenType: scalarOf(raw["token_type"]),
		expiresIn: scalarOf(raw["expires_in"]), scopes: scopesOf(raw["scope"]), id: readIDToken(scalarOf(raw["id_token"])),
		problem: problemOf(raw["error"]), numbers: scalarsOf(raw["error_codes"]),
	}
	if !printableFrom(m.access, '!') || !printableFrom(m.refresh, ' ') || !printableFrom(m.tokenType, '!') || isComposite(raw["refresh_token"]) {
		return members{}, errMalformed
	}
	m.account = cmp.Or(accountOf(m.id), namedAccount(raw))
	return m, nil
}

// readObject returns the raw values of the first JSON value's members that we know.
func readObject(body []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if _, err := dec.Token(); err != nil { // the opening brace
		return nil, errMalformed
	}
	raw, seen := map[string]json.RawMessage{}, map[string]bool{}
	for dec.More() {
		var value json.RawMessage
		key, err := dec.Token()
		if err != nil || dec.Decode(&value) != nil {
			return nil, errMalformed
		}
		if err := keepMember(raw, seen, key.(string), value); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, errMalformed
	}
	return raw, nil
}

// readForm does the same for a form, which must have at least one of the members that matter.
func readForm(body []byte) (map[string]json.RawMessage, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil || !form.Has("access_token") && !form.Has("error") {
		return nil, errMalformed
	}
	raw, seen := map[string]json.RawMessage{}, map[string]bool{}
	for key, values := range form {
		for _, value := range values {
			quoted, _ := json.Marshal(value) // a string always marshals
			if err := keepMember(raw, seen, key, quoted); err != nil {
				return nil, err
			}
		}
	}
	return raw, nil
}

// keepMember adds a member that we read. A second one, or one in another case, is a reason to trust none (RFC 6749 sections
// 3.2 and 5.1): parsers disagree which of them counts. Of the members that only name an account none is kept then.
func keepMember(raw map[string]json.RawMessage, seen map[string]bool, key string, value json.RawMessage) error {
	if slices.Contains([]string{"id", "team", "enterprise"}, key) {
		if raw[key] = value; seen[key] {
			raw[key] = nil
		}
		seen[key] = true
		return nil
	}
	for _, name := range []string{
		"access_token", "refresh_token", "token_type", "expires_in", "scope", "id_token", "error", "error_codes",
	} {
		if !strings.EqualFold(name, key) {
			continue
		}
		if seen[name] {
			return errMalformed
		}
		seen[name] = true
		raw[key] = value // in another case it is nobody's
	}
	return nil
}

// scalarOf returns a string's value or a number's digits; empty for everything else.
func scalarOf(raw json.RawMessage) string {
	var s string
	var n json.Number
	switch {
	case json.Unmarshal(raw, &s) == nil:
		return s
	case json.Unmarshal(raw, &n) == nil:
		return n.String()
	}
	return ""
}

func isComposite(raw json.RawMessage) bool {
	return len(raw) > 0 && (raw[0] == '{' || raw[0] == '[')
}

// problemOf returns the error code: any value but null, false, 0 and "" says that there is an error.
func problemOf(raw json.RawMessage) string {
	switch string(raw) {
	case "", "null", "false", "0", `""`:
		return ""
	}
	if s := scalarOf(raw); s != "" {
		return s
	}
	return "other"
}

// scopesOf splits on spaces (RFC 6749 section 3.3) and on commas, which some providers send; some send an array. What is not
// a scope-token is left out.
func scopesOf(raw json.RawMessage) []string {
	var scopes []string
	for _, entry := range append(scalarsOf(raw), scalarOf(raw)) {
		for _, scope := range strings.FieldsFunc(entry, func(r rune) bool { return r == ' ' || r == ',' }) {
			if printableFrom(scope, '!') && !strings.ContainsAny(scope, "\"\\") && !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

// scalarsOf returns the scalars of an array.
func scalarsOf(raw json.RawMessage) []string {
	var values []json.RawMessage
	if json.Unmarshal(raw, &values) != nil {
		return nil
	}
	out := make([]string, 0, len(values))
	for _, value := range values {
		out = append(out, scalarOf(value))
	}
	return out
}

// maxToken bounds what is kept of one value.
const maxToken = 16384

// printableFrom reports whether s is short enough and of printable ASCII characters, from first on: RFC 6749 appendix A allows
// the space in tokens, but an access token goes into a header (RFC 6750 section 2.1).
func printableFrom(s string, first byte) bool {
	return len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r < rune(first) || r > '~' })
}
