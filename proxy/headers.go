package proxy

import (
	"net/http"
	"strings"
)

// notSent are the folded names of request headers that stay here: what proves something to us, what says where a request came
// from, what would change its meaning behind our rules, and what a browser adds.
var notSent = map[string]bool{
	"authorization": true, "cookie": true, "cookie2": true,
	"forwarded": true, "via": true, "x-forwarded": true, "x-real-ip": true, "x-client-ip": true, "true-client-ip": true,
	"x-rewrite-url": true, "x-http-method-override": true, "x-method-override": true, "x-http-method": true,
	"origin": true, "referer": true,
	"host": true, "content-length": true, "transfer-encoding": true, "te": true, "trailer": true, "http2-settings": true,
	"x-request-id": true, "traceparent": true, "tracestate": true, // set anew
}

// notSentPrefixes are the folded beginnings of further ones.
var notSentPrefixes = [...]string{"x-bifrost-", "x-org-", "x-forwarded-", "x-original-", "proxy-", "sec-", "cf-"}

// usual are names that most requests carry and that pass, unless a target injects them: they need not be folded to know.
var usual = [...]string{
	"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Content-Type", "If-Match", "If-None-Match", "Prefer", "Range", "User-Agent",
}

// foldName folds the spellings that some upstreams take for one name: letter case, underscores and dots.
func foldName(name string) string {
	var buf [64]byte
	return string(appendFolded(buf[:0], name))
}

func appendFolded(buf []byte, name string) []byte {
	for i := range len(name) {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '_', c == '.':
			c = '-'
		}
		buf = append(buf, c)
	}
	return buf
}

// passes reports whether a caller's header goes to this upstream. Those for this hop do not, but for a handshake's, which httputil
// has set.
func (t *target) passes(name string, websocket bool) bool {
	if t.usual[name] {
		return true
	}
	if name == "Connection" || name == "Keep-Alive" || name == "Upgrade" {
		return websocket
	}
	var buf [64]byte
	folded := appendFolded(buf[:0], name)
	if notSent[string(folded)] || t.injected[string(folded)] {
		return false
	}
	for _, prefix := range notSentPrefixes {
		if len(folded) >= len(prefix) && string(folded[:len(prefix)]) == prefix {
			return websocket && strings.HasPrefix(string(folded), "sec-websocket-")
		}
	}
	return true
}

// upstreamHeader makes the headers of a request to t: the caller's that pass, then ours. The values are shared with in, and
// must not be changed in place.
func (x *exchange) upstreamHeader(t *target, in http.Header) http.Header {
	out := make(http.Header, len(in)+len(t.headers)+1) // the caller's key and org stay here, the credential and an id come
	for name, values := range in {
		if t.passes(name, x.websocket) {
			out[name] = values
		}
	}
	if parent := in["Traceparent"]; len(parent) == 1 && validTraceparent(parent[0]) {
		out["Traceparent"] = parent
		if state, ok := in["Tracestate"]; ok {
			out["Tracestate"] = state
		}
	}
	if _, named := out["User-Agent"]; !named {
		out["User-Agent"] = nobody
	}
	out["X-Request-Id"] = x.idValues
	if x.route.RewriteLinks {
		out["Accept-Encoding"] = asItIs // what is compressed cannot be rewritten
	}
	for _, h := range t.headers {
		out[h.name] = h.values
	}
	return out
}

// returned reports whether a header of an answer is for the caller. The others would act on its side of us: cookies would mix
// orgs, the rest speak for our host, or invite to go round us.
func returned(name string) bool {
	switch name {
	case "Set-Cookie", "Set-Cookie2", "Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data",
		"Public-Key-Pins", "Public-Key-Pins-Report-Only", "Report-To", "Nel", "Refresh",
		"X-Request-Id": // ours is sent instead
		return false
	}
	return !strings.HasPrefix(name, "Access-Control-") && !ourName(name)
}

// filterResponse removes from an upstream's headers what is not for the caller.
func filterResponse(h http.Header) {
	for name := range h {
		if !returned(name) {
			delete(h, name)
		}
	}
}

// ourName reports whether a header's name folds to one of X-Bifrost-*: only we say such things.
func ourName(name string) bool {
	const ours = "x-bifrost-"
	if len(name) < len(ours) || name[0] != 'X' && name[0] != 'x' {
		return false
	}
	var buf [len(ours)]byte
	return string(appendFolded(buf[:0], name[:len(ours)])) == ours
}

// Ready values: shared by every request and answer.
var (
	asItIs     = []string{"identity"}
	nobody     = []string{""} // else net/http would name itself
	usedOrg    = []string{"org"}
	usedGlobal = []string{"global"}
)

// setOwnHeaders adds what every answer carries.
func (x *exchange) setOwnHeaders(h http.Header) {
	h["X-Request-Id"] = x.idValues
	switch x.connection {
	case "org":
		h["X-Bifrost-Connection"] = usedOrg
	case "global":
		h["X-Bifrost-Connection"] = usedGlobal
	}
}

// validTraceparent checks the form of W3C Trace Context, section 3.2: version, trace id, parent id, flags.
func validTraceparent(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	if len(s) > 55 && (s[:2] == "00" || s[55] != '-') {
		return false
	}
	return lowerHex(s[:2]) && lowerHex(s[3:35]) && lowerHex(s[36:52]) && lowerHex(s[53:55]) &&
		strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
