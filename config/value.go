package config

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The parsers of single values, for set and setList. Their errors are messages for people: what the value must be. They never
// hold the value.

var (
	namePattern  = upTo(64, `^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	whoPattern   = upTo(128, `^[A-Za-z0-9][A-Za-z0-9_.@+-]*$`)
	orgPattern   = upTo(128, `^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	tokenPattern = upTo(128, "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")        // RFC 9110 section 5.6.2
	scopePattern = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`) // RFC 6749 section 3.3
)

var (
	errName = errors.New("must begin with a letter or digit and hold letters, digits, _ . - alone, at most 64 in all")
	errWho  = errors.New("must begin with a letter or digit and hold letters, digits, _ . @ + - alone, at most 128 in all")
	errOrg  = errors.New("is not the name of an org: it must begin with a letter or digit and hold letters, digits, . _ - alone, at most 128 in all")
)

// name is the name of an integration or an encryption key.
func name(s string) (string, error) { return matching(s, namePattern, errName) }

// who is the name of a caller or operator, which may be an email address.
func who(s string) (string, error) { return matching(s, whoPattern, errWho) }

func org(s string) (string, error) { return matching(s, orgPattern, errOrg) }

func matching(s string, pattern pattern, err error) (string, error) {
	if !pattern.MatchString(s) {
		return "", err
	}
	return s, nil
}

// line is text without control characters.
func line(s string) (string, error) {
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return "", errors.New("has a line break or another control character: remove it")
	}
	return s, nil
}

// prose is text for people, which may have several lines.
func prose(s string) (string, error) { return strings.TrimSpace(s), nil }

// oneOf returns a parser of a closed set of words.
func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(words, s) {
			return "", errors.New("must be " + strings.Join(words, " or "))
		}
		return s, nil
	}
}

// duration is a Go duration, zero included.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("must be a duration such as 500ms, 30s or 24h")
	}
	return d, nil
}

// span is a duration longer than zero.
func span(s string) (time.Duration, error) {
	d, err := duration(s)
	if err == nil && d == 0 {
		err = errors.New("must be longer than zero")
	}
	return d, err
}

// sizePattern is a size: bytes, or with a unit.
var sizePattern = regexp.MustCompile(`^([0-9]{1,19})(|KiB|MiB|GiB)$`)

// size is a number of bytes, zero included.
func size(s string) (int64, error) {
	units := map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
	if m := sizePattern.FindStringSubmatch(s); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err == nil && n <= math.MaxInt64/units[m[2]] {
			return n * units[m[2]], nil
		}
	}
	return 0, errors.New("must be a size in bytes such as 65536, or with a unit such as 64KiB, 10MiB or 1GiB")
}

// scopes is a list of scopes, separated by spaces (RFC 6749 section 3.3).
func scopes(s string) ([]string, error) {
	list := strings.Fields(s)
	for i, scope := range list {
		if !scopePattern.MatchString(scope) {
			return nil, errors.New("must be scopes separated by single spaces, without quotes or other special characters")
		}
		if slices.Contains(list[:i], scope) {
			return nil, errors.New("names a scope twice: remove one")
		}
	}
	return list, nil
}
