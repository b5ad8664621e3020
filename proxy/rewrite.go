package proxy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/bifrost-proxy/bifrost/authflow"
)

// upstreamRequest makes the request to the upstream of cred's connection: its URL from the configuration and the caller's raw
// path and query, its headers from the caller's that pass and ours. in is left as it is: it never holds a credential. The
// caller's context replaces httputil's, whose client trace would pass on informational answers that nobody has filtered.
func (x *exchange) upstreamRequest(in *http.Request, t *target, cred authflow.Credential) (*http.Request, error) {
	query, err := x.upstreamQuery(cred.Header())
	if err != nil {
		return nil, err
	}
	u, err := t.url(x.rest, query, x.target.hasQuery || query != "")
	if err != nil {
		return nil, err
	}
	out := in.WithContext(x.r.Context())
	out.URL = u
	out.Host = t.host
	out.Header = x.upstreamHeader(t, x.callersHeader(in))
	out.Trailer = nil
	out.RequestURI = ""
	if x.route.Query == "" {
		out.Header[x.route.Header] = cred.Values()
	}
	if x.body != nil {
		out.Body = x.body.attempt()
		out.GetBody = x.body.nextAttempt
	}
	return out, nil
}

// url returns the address of a raw path under the target, such that its bytes reach the wire unchanged.
func (t *target) url(rest, query string, hasQuery bool) (*url.URL, error) {
	path := rest
	if t.base != "" {
		path = t.base + rest
	}
	if path == "" {
		path = "/"
	}
	u := &url.URL{Scheme: t.scheme, Host: t.host, RawQuery: query, ForceQuery: hasQuery}
	if !strings.HasPrefix(path, "//") {
		u.Opaque = path // written as it is
		return u, nil
	}
	// As Opaque it would be taken for an authority.
	var err error
	if u.Path, err = url.PathUnescape(path); err == nil {
		u.RawPath = path
	}
	if err != nil || u.EscapedPath() != path {
		return nil, fail(codeBadRequest, "")
	}
	return u, nil
}

// upstreamQuery returns the caller's raw query, and the credential after it where the integration sends it there. The caller's
// own parameter of that name is dropped, in every spelling; a query that could hide one is refused.
func (x *exchange) upstreamQuery(secret string) (string, error) {
	name := x.route.Query
	if name == "" {
		return x.target.query, nil
	}
	var kept []string
	for pair := range strings.SplitSeq(x.target.query, "&") {
		if pair == "" {
			continue
		}
		key, _, _ := strings.Cut(pair, "=")
		decoded, err := url.QueryUnescape(key)
		if err != nil || hidesParameter(pair, name) {
			return "", fail(codeBadRequest, "The query cannot be told from the credential's parameter.")
		}
		if !strings.EqualFold(decoded, name) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(append(kept, url.QueryEscape(name)+"="+url.QueryEscape(secret)), "&"), nil
}

// hidesParameter reports whether pair has a parameter called name for those who take semicolons as separators too.
func hidesParameter(pair, name string) bool {
	_, rest, more := strings.Cut(pair, ";")
	for more {
		var part string
		part, rest, more = strings.Cut(rest, ";")
		key, _, _ := strings.Cut(part, "=")
		if decoded, err := url.QueryUnescape(key); err != nil || strings.EqualFold(decoded, name) {
			return true
		}
	}
	return false
}
