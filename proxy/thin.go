package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// noURL stands in for a plain request's URL. httputil clones it and changes only the clone.
var noURL = &url.URL{}

// serve hands the request to httputil. httputil clones a request's URL and headers, parses its query and looks through its
// headers, while the upstream's are made from the caller's own, in RoundTrip: where no header is for httputil, it sees none.
func (x *exchange) serve(w http.ResponseWriter) {
	r := x.r
	if x.tunnel != nil || !plainConnection(r.Header) {
		x.rp.ServeHTTP(w, r)
		return
	}
	address := r.URL
	x.header, r.Header, r.URL = r.Header, nil, noURL
	defer func() { r.Header, r.URL = x.header, address }()
	x.rp.ServeHTTP(w, r)
}

// plainConnection reports whether Connection names no header that is for this hop alone (RFC 9110 section 7.6.1).
func plainConnection(h http.Header) bool {
	values := h["Connection"]
	return len(values) == 0 || len(values) == 1 && (strings.EqualFold(values[0], "keep-alive") || strings.EqualFold(values[0], "close"))
}

// callersHeader returns the caller's headers: in's, which httputil has cleared of those for this hop, or what serve has kept from it,
// which nobody has.
func (x *exchange) callersHeader(in *http.Request) http.Header {
	if x.header != nil {
		return x.header
	}
	return in.Header
}

// giveHeader moves an answer's headers to the caller's, where httputil would copy them one by one. It still has to see a
// stream's Content-Type.
func (x *exchange) giveHeader(res *http.Response) {
	h := x.w.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	res.Header = nil
	if x.events {
		res.Header = http.Header{"Content-Type": h["Content-Type"]}
		delete(h, "Content-Type")
	}
}
