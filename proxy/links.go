package proxy

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// linkRewriter turns addresses of one upstream into the proxy's own, so that the next request comes back through it.
type linkRewriter struct {
	upstream *target
	public   string // what stands in for its origin; empty: rooted paths
	prefix   string // what stands in for its base path
	secret   string // escaped query parameter that must not be passed on; empty: none
}

// rewriteLinks rewrites the headers of an answer that hold addresses (RFC 9110 sections 8.7 and 10.2.2, RFC 8288).
func (x *exchange) rewriteLinks(h http.Header) {
	lw := linkRewriter{upstream: x.upstream, public: x.public, prefix: x.prefix}
	if x.route.Query != "" {
		lw.secret = url.QueryEscape(x.route.Query) + "=" + url.QueryEscape(x.secret)
	}
	for _, name := range [...]string{"Location", "Content-Location"} {
		for i, value := range h[name] {
			h[name][i] = lw.reference(value)
		}
	}
	for i, value := range h["Link"] {
		h["Link"][i] = lw.link(value)
	}
}

// link rewrites every <target> of a Link header.
func (lw *linkRewriter) link(value string) string {
	var out strings.Builder
	quoted := false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\' && i+1 < len(value):
			out.WriteByte(c)
			i++
		case c == '"':
			quoted = !quoted
		case c == '<' && !quoted:
			if end := strings.IndexByte(value[i:], '>'); end > 0 {
				out.WriteByte('<')
				out.WriteString(lw.reference(value[i+1 : i+end]))
				i += end
			}
		}
		out.WriteByte(value[i])
	}
	return out.String()
}

// reference rewrites a URI reference if it names something under the upstream's base path that the gate would let back in.
// Addresses of other hosts and references relative to the request stay as they are.
func (lw *linkRewriter) reference(ref string) string {
	if lw.secret != "" {
		ref = dropPair(ref, lw.secret)
	}
	path, ours := lw.ownPath(ref)
	if !ours {
		return ref
	}
	raw, tail := path, ""
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		raw, tail = path[:end], path[end:]
	}
	rest, under := strings.CutPrefix(raw, lw.upstream.base)
	if under && rest == "" && lw.prefix == "" {
		rest = "/"
	}
	if !under || rest != "" && rest[0] != '/' || !plainPath(lw.prefix+rest) {
		return lw.absolute(ref)
	}
	return lw.public + lw.prefix + rest + tail
}

// ownPath returns what follows the authority in a reference to the upstream itself.
func (lw *linkRewriter) ownPath(ref string) (string, bool) {
	rest := ref
	scheme := lw.upstream.scheme
	switch after, absolute := cutHTTPScheme(ref); {
	case absolute:
		scheme, _, _ = strings.Cut(ref, ":")
		rest = after
	case strings.HasPrefix(ref, "//"):
		rest = ref[2:]
	case strings.HasPrefix(ref, "/"):
		return ref, true
	default:
		return "", false
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return rest[end:], originOf(scheme, rest[:end]) == lw.upstream.origin
}

// absolute spells out a rooted path outside of the base path: relative to the proxy it would name another integration.
func (lw *linkRewriter) absolute(ref string) string {
	if strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, "//") {
		return lw.upstream.scheme + "://" + lw.upstream.host + ref
	}
	return ref
}

// originOf returns scheme://host:port in lower case with the port written out. An authority with userinfo is nobody's origin.
func originOf(scheme, authority string) string {
	scheme = strings.ToLower(scheme)
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(authority, "["), "]"), ""
	}
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + net.JoinHostPort(strings.ToLower(host), port)
}

// dropPair removes a query parameter that an upstream has echoed.
func dropPair(ref, pair string) string {
	head, query, ok := strings.Cut(ref, "?")
	if !ok || !strings.Contains(query, pair) {
		return ref
	}
	query, fragment, hasFragment := strings.Cut(query, "#")
	var kept []string
	for one := range strings.SplitSeq(query, "&") {
		if one != pair {
			kept = append(kept, one)
		}
	}
	if len(kept) > 0 {
		head += "?" + strings.Join(kept, "&")
	}
	if hasFragment {
		head += "#" + fragment
	}
	return head
}
