package authflow

import (
	"net/url"
	"regexp"
	"strings"
)

// Bounds on what a callback may carry: real codes reach 4 KiB.
const (
	maxQuery     = 32 << 10
	maxParameter = 8 << 10
)

// answer is a provider's answer to an authorization request (RFC 6749 section 4.1.2, RFC 9207): a code or an error. realm is the
// company at QuickBooks.
type answer struct{ code, state, iss, err, realm string }

var realRealm = regexp.MustCompile(`^\d{1,20}$`)

// readAnswer reads the query of a callback, or says in one word what is wrong with it. Everything in it is hostile until the
// cookie and the state say otherwise, and unknown parameters are passed over. It does not use url.ParseQuery, which fails on
// any semicolon, so that one in a parameter that means nothing to us does no harm.
func readAnswer(query string) (a answer, wrong string) {
	if len(query) > maxQuery {
		return answer{}, "too long"
	}
	known := map[string]*string{"code": &a.code, "state": &a.state, "iss": &a.iss, "error": &a.err, "realmId": &a.realm}
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if nameErr != nil || valueErr != nil {
			return answer{}, "malformed"
		}
		if len(value) > maxParameter {
			return answer{}, "too long"
		}
		field, ok := known[name]
		if !ok {
			continue
		}
		if seen[name] {
			return answer{}, "repeated"
		}
		if !printable(value) {
			return answer{}, "malformed"
		}
		seen[name], *field = true, value
	}
	switch { // an empty value is an absent one (RFC 6749 section 3.1)
	case a.state == "":
		return answer{}, "no state"
	case a.code != "" && a.err != "":
		return answer{}, "code and error"
	case a.code == "" && a.err == "":
		return answer{}, "no code"
	case a.realm != "" && !realRealm.MatchString(a.realm):
		return answer{}, "malformed"
	}
	return a, ""
}

// printable tells whether s consists of the characters that RFC 6749 appendix A allows in all of these parameters.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
