package proxy

import (
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

// rewriteLinks rewrites the headers of an answer that hold addresses (RFC 9110 sections 8.7 and 10.2.2, RFC 8288). Clients take
// the target of a Link for a whole URL and would put their base URL before a rooted path, so it is absolute where it can be.
func (x *exchange) rewriteLinks(h http.Header) {
	lw := linkRewriter{upstream: x.upstream, public: x.public, prefix: x.prefix}
	if x.route.Query != "" {
		lw.secret = x.pair()
	}
	for _, name := range [...]string{"Location", "Content-Location"} {
		for i, value := range h[name] {
			h[name][i] = lw.reference(value)
		}
	}
	links := h["Link"]
	if len(links) == 0 && !x.route.RewriteLinks {
		return
	}
	lw.public = x.address()
	for i, value := range links {
		links[i] = lw.link(value)
	}
	if x.route.RewriteLinks && lw.public != "" {
		lw.addresses(h)
	}
}

// pair is the query parameter that carries the credential, as the upstream got it.
func (x *exchange) pair() string {
	return url.QueryEscape(x.route.Query) + "=" + url.QueryEscape(x.secret)
}

// address returns the proxy's own address as the caller knows it, without a path of the route: the public URL, or scheme and
// Host of the request. It is empty if that Host is none that could stand in a link.
func (x *exchange) address() string {
	switch {
	case x.public != "":
		return x.public
	case !plainHost(x.r.Host):
		return ""
	case x.r.TLS != nil:
		return "https://" + x.r.Host
	}
	return "http://" + x.r.Host
}

// plainHost reports whether an authority has only bytes that mean the same in every text that quotes it.
func plainHost(authority string) bool {
	for i := range len(authority) {
		switch c := authority[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte(".-_:[]", c) < 0:
			return false
		}
	}
	return authority != ""
}

// addresses rewrites every header whose whole value is an absolute URL: Operation-Location, OData-EntityId and their kin.
func (lw *linkRewriter) addresses(h http.Header) {
	for _, values := range h {
		for i, value := range values {
			if _, absolute := cutHTTPScheme(value); absolute && !strings.ContainsAny(value, " \t\"<>") {
				values[i] = lw.reference(value)
			}
		}
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
	path, ours := lw.rest(ref)
	if !ours {
		return lw.absolute(ref)
	}
	tail := ""
	if end := strings.IndexAny(path, "?#"); end >= 0 {
		path, tail = path[:end], path[end:]
	}
	if path == "" && lw.prefix == "" {
		path = "/"
	}
	if path != "" && path[0] != '/' || !plainPath(lw.prefix+path) {
		return lw.absolute(ref)
	}
	return lw.public + lw.prefix + path + tail
}

// rest returns what follows the base path in a reference to the upstream itself.
func (lw *linkRewriter) rest(ref string) (string, bool) {
	o := &lw.upstream.own
	end, v := 0, foreign
	switch {
	case strings.HasPrefix(ref, "//"):
		if end, v = matchAuthority(o, ref, 2); v == own {
			end, v = matchPath(ref, end, o.base, false)
		}
	case strings.HasPrefix(ref, "/"):
		end, v = matchPath(ref, 0, o.base, false)
	default:
		end, v = matchURL(o, ref, false)
	}
	return ref[end:], v == own
}

// absolute spells out a rooted path outside of the base path: relative to the proxy it would name another integration.
func (lw *linkRewriter) absolute(ref string) string {
	if strings.HasPrefix(ref, "/") && !strings.HasPrefix(ref, "//") {
		return lw.upstream.scheme + "://" + lw.upstream.host + ref
	}
	return ref
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
