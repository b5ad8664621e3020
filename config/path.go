package config

import (
	"errors"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// reservedRoute begins the proxy's own paths.
const reservedRoute = "/_bifrost"

var routeCharacters = regexp.MustCompile(`^[A-Za-z0-9._~:@!$&'()*+,;=/-]+$`)

// route is the path that an integration is reached under. It is compared with raw bytes, so it has no escapes.
func route(s string) (string, error) {
	switch {
	case !strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/"):
		return "", errors.New("must begin with / and not end with /, such as /graph")
	case s == reservedRoute || strings.HasPrefix(s, reservedRoute+"/"):
		return "", errors.New("is reserved: " + reservedRoute + " is the proxy's own")
	case !routeCharacters.MatchString(s):
		return "", errors.New("has a character that may not stand in a path unencoded")
	}
	return s, checkPath(s)
}

// checkPath says what is wrong with a raw path: what the proxy would refuse in a request may not be in the configuration.
func checkPath(p string) error {
	switch {
	case strings.Contains(p, "//"):
		return errors.New("has an empty path segment (//)")
	case hasDotSegment(p):
		return errors.New("has a dot segment (. or .., plain or encoded) in its path: write the path that is meant")
	}
	decoded, err := url.PathUnescape(p)
	if err != nil {
		return errors.New("has a malformed % escape in its path")
	}
	if strings.ContainsFunc(decoded, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\\' }) {
		return errors.New("has a control character or backslash in its path")
	}
	return nil
}

// hasDotSegment looks at the path as written, decoded once and decoded twice; / and \ both separate, ;params are ignored.
func hasDotSegment(p string) bool {
	for range 3 {
		for segment := range strings.FieldsFuncSeq(p, func(c rune) bool { return c == '/' || c == '\\' }) {
			segment, _, _ = strings.Cut(segment, ";")
			if segment == "." || segment == ".." {
				return true
			}
		}
		p = escape.ReplaceAllStringFunc(p, func(e string) string {
			c, _ := strconv.ParseUint(e[1:], 16, 8)
			return string([]byte{byte(c)})
		})
	}
	return false
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

var (
	methodPattern = upTo(32, `^[A-Z][A-Z-]*$`)
	rulePath      = regexp.MustCompile(`^/[A-Za-z0-9._~:@!$&'()+,;=%/*-]*$`)
)

// method is an HTTP method that a caller may use.
func method(s string) (string, error) {
	switch {
	case !methodPattern.MatchString(s):
		return "", errors.New("must be an HTTP method in upper case, such as GET")
	case s == "CONNECT" || s == "TRACE":
		return "", errors.New("is never proxied: remove it")
	}
	return s, nil
}

// rule is "METHOD /path": METHOD * is any, a segment * is any one, ** at the end is any rest, none included.
func rule(s string) (string, error) {
	verb, path, ok := strings.Cut(s, " ")
	if !ok || !strings.HasPrefix(path, "/") {
		return "", errors.New(`must be "METHOD /path", such as "GET /v1.0/users/**"`)
	}
	if _, err := method(verb); err != nil && verb != "*" {
		return "", errors.New("begins with no HTTP method that can be proxied: write it in upper case, such as GET, or * for any")
	}
	if !rulePath.MatchString(path) {
		return "", errors.New("has a character that may not stand in a path unencoded: a rule is about the path alone")
	}
	if err := checkPath(path); err != nil {
		return "", err
	}
	return s, checkStars(path)
}

func checkStars(path string) error {
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		switch {
		case segment == "**" && i < len(segments)-1:
			return errors.New("has ** before its end: ** is for any rest, * for one segment")
		case segment != "*" && segment != "**" && strings.Contains(segment, "*"):
			return errors.New("has a * inside a segment: * stands for a whole one")
		}
	}
	return nil
}
