package proxy

import (
	"net/url"
	"strings"
)

// ownURL is how the absolute URLs of one upstream begin: scheme and host in any case, the scheme's default port written out or
// left out, and the base path byte for byte. It is the one place that knows what belongs to an upstream.
type ownURL struct {
	scheme  string // with its colon; like host in lower case
	host    string // IPv6 in brackets
	port    string // with its colon
	bare    bool   // the port is the scheme's default
	base    string // escaped path without trailing slash; may be empty
	usual   string // the usual spelling of it all
	escaped string // the same in a JSON string whose slashes are escaped
}

func newOwnURL(u *url.URL, base string) ownURL {
	o := ownURL{scheme: lowerASCII(u.Scheme) + ":", port: ":" + u.Port(), base: base}
	o.host = lowerASCII(strings.TrimSuffix(u.Host, o.port))
	standard := map[string]string{"http:": ":80", "https:": ":443"}[o.scheme]
	if o.bare = o.port == ":" || o.port == standard; o.bare {
		o.port = standard
	}
	o.usual = o.scheme + "//" + o.host
	if !o.bare {
		o.usual += o.port
	}
	o.usual += o.base
	o.escaped = escapeSlashes(o.usual)
	return o
}

// verdict is what is known of some bytes.
type verdict int

const (
	foreign    verdict = iota
	own                // they begin with a URL of the upstream; whether it ends there is for the caller to see
	unfinished         // they end before it is known
)

// matchURL matches the beginning of s, and returns where the match ends. In JSON a slash may be escaped.
func matchURL[T string | []byte](o *ownURL, s T, json bool) (end int, v verdict) {
	for _, usual := range [...]string{o.usual, o.escaped} {
		// A colon after it could begin the default port.
		if n := len(usual); len(s) > n && string(s[:n]) == usual && s[n] != ':' && (json || usual == o.usual) {
			return n, own
		}
	}
	end, v = matchFolded(s, 0, o.scheme)
	if v == own {
		end, v = matchPath(s, end, "//", json)
	}
	if v == own {
		end, v = matchAuthority(o, s, end)
	}
	if v == own {
		end, v = matchPath(s, end, o.base, json)
	}
	return end, v
}

// matchAuthority matches host and port at s[at:].
func matchAuthority[T string | []byte](o *ownURL, s T, at int) (end int, v verdict) {
	end, v = matchFolded(s, at, o.host)
	if v != own || o.bare && (end == len(s) || s[end] != ':') {
		return end, v
	}
	if digit := end + 1; o.bare && (digit == len(s) || s[digit] < '0' || s[digit] > '9') {
		return digit, own // an empty port is the default one (RFC 3986 section 3.2.3)
	}
	return matchFolded(s, end, o.port)
}

// matchFolded matches want, which is in lower case, at s[at:] in any case.
func matchFolded[T string | []byte](s T, at int, want string) (end int, v verdict) {
	for i := range len(want) {
		if at+i == len(s) {
			return len(s), unfinished
		}
		if lowerByte(s[at+i]) != want[i] {
			return at + i, foreign
		}
	}
	return at + len(want), own
}

// matchPath matches want at s[at:] byte for byte.
func matchPath[T string | []byte](s T, at int, want string, json bool) (end int, v verdict) {
	for i := range len(want) {
		if json && want[i] == '/' && at < len(s) && s[at] == '\\' {
			at++
		}
		if at == len(s) {
			return at, unfinished
		}
		if s[at] != want[i] {
			return at, foreign
		}
		at++
	}
	return at, own
}

func escapeSlashes(s string) string { return strings.ReplaceAll(s, "/", `\/`) }

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}
