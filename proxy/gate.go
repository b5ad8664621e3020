package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// target of the request line, split but not decoded: the one reading that routing, rules and forwarding share.
type rawTarget struct {
	path     string // begins with exactly one slash
	query    string // without the question mark
	hasQuery bool   // there was a question mark
	form     string // the authority of an absolute form (RFC 9112 section 3.2.2); empty in origin form
}

// parseTarget splits the target of a request line as it came. It reports false for what has, or could be given, two readings:
// dot segments in any encoding, backslashes and control bytes, malformed escapes, a leading double slash, a fragment.
// Refusing is all it does; it never normalises.
func parseTarget(raw string) (rawTarget, bool) {
	var t rawTarget
	if i := strings.IndexByte(raw, ':'); i > 0 && raw[0] != '/' {
		rest, found := cutHTTPScheme(raw)
		if !found {
			return t, false
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		t.form = rest[:end]
		if t.form == "" || strings.ContainsAny(t.form, "@\\#%") {
			return t, false
		}
		raw = rest[end:]
		if raw == "" || raw[0] == '?' {
			raw = "/" + raw
		}
	}
	t.path, t.query, t.hasQuery = strings.Cut(raw, "?")
	return t, plainPath(t.path) && plainQuery(t.query)
}

// cutHTTPScheme removes a leading "http://" or "https://" in any case.
func cutHTTPScheme(s string) (string, bool) {
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return s[len(scheme):], true
		}
	}
	return "", false
}

// plainQuery accepts every query without raw control bytes, blanks (which HTTP/2 lets through and no request line can
// carry) and fragments. No decision is taken from it, so its escapes need not be well-formed.
func plainQuery(q string) bool {
	for i := range len(q) {
		if c := q[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// plainPath accepts a path that means the same to everyone who reads it.
func plainPath(p string) bool {
	if p == "" || p[0] != '/' || len(p) > 1 && p[1] == '/' {
		return false
	}
	escaped := false
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c <= ' ', c == 0x7f, c == '\\', c == '#':
			return false
		case c == '%':
			d, ok := unhex(p, i)
			if !ok || d < ' ' || d == 0x7f || d == '\\' {
				return false
			}
			escaped = true
		}
	}
	if hasDotSegment(p) {
		return false
	}
	if !escaped {
		return true
	}
	var buf [256]byte
	once := unescape(buf[:0], p)
	if hasDotSegment(once) {
		return false
	}
	return strings.IndexByte(once, '%') < 0 || !hasDotSegment(unescape(buf[:0], once))
}

// hasDotSegment reports whether a segment is "." or "..", with slashes and backslashes as separators and leaving out what
// follows a semicolon (some servers strip such parameters before they resolve dots).
func hasDotSegment(p string) bool {
	for start := 0; start < len(p); {
		end := start
		for end < len(p) && p[end] != '/' && p[end] != '\\' {
			end++
		}
		segment := p[start:end]
		if len(segment) > 0 && segment[0] == '.' {
			segment, _, _ = strings.Cut(segment, ";")
			if segment == "." || segment == ".." {
				return true
			}
		}
		start = end + 1
	}
	return false
}

// unescape decodes one round of percent-encoding into buf's memory or new; what is no escape stays as it is.
func unescape(buf []byte, s string) string {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if d, ok := unhex(s, i); ok {
				c, i = d, i+2
			}
		}
		buf = append(buf, c)
	}
	return string(buf)
}

// unhex decodes the escape that begins at s[i].
func unhex(s string, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, ok1 := nibble(s[i+1])
	lo, ok2 := nibble(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func nibble(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// upgrade says what a request's Upgrade header asks for: nothing, a WebSocket, or (ok is false) anything else. A tunnel of
// another protocol would carry requests past every rule. Without Connection: upgrade the header means nothing (RFC 9110
// section 7.8), but another protocol is refused all the same.
func upgrade(r *http.Request) (websocket, ok bool) {
	values, asked := r.Header["Upgrade"]
	if !asked {
		return false, true
	}
	return namesUpgrade(r.Header["Connection"]), len(values) == 1 && strings.EqualFold(values[0], "websocket")
}

// namesUpgrade reports whether one of the names in Connection headers is Upgrade.
func namesUpgrade(connection []string) bool {
	for _, value := range connection {
		for name := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.Trim(name, " \t"), "upgrade") {
				return true
			}
		}
	}
	return false
}

// plainAuthority accepts an authority without bytes that stand in no host: HTTP/1 requests with such a Host are refused by
// net/http itself, HTTP/2 ones are not.
func plainAuthority(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"#/<>?@\\^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

// trueLength reports whether the Content-Length of a request is the length that net/http goes by. Over HTTP/2 it takes the first
// of several, zero for a malformed one, and the end of the stream for whatever was declared.
func trueLength(r *http.Request) bool {
	values, declared := r.Header["Content-Length"]
	if !declared {
		return true
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	return len(values) == 1 && err == nil && int64(n) == r.ContentLength
}

// ourHost reports whether a request that names this authority means us: loopback, the public URL, or a route's host.
func (p *Proxy) ourHost(authority string) bool {
	if authority == "" {
		return false
	}
	host := hostname(authority)
	if host == "localhost" || p.hosts.match(authority) != nil {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return true
	}
	return p.publicHost != "" && (strings.EqualFold(authority, p.publicHost) || host == hostname(p.publicHost))
}

// calledAddress reports whether authority is the very address on which the request's connection was accepted.
func calledAddress(r *http.Request, authority string) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && addr.String() == authority
}

// hostname returns an authority's host, in lower case, without port and brackets.
func hostname(authority string) string {
	if host, _, err := net.SplitHostPort(authority); err == nil {
		authority = host
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]"))
}
