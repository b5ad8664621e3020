package proxy

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"
)

// aboutBytes are the headers that describe the bytes of a body, or invite to ask for some of them.
var aboutBytes = [...]string{"Content-Length", "Content-Md5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"}

// rewriteBody makes the addresses of the upstream in a JSON answer the proxy's own, and reports whether the body's length is no
// longer known. ContentLength stays what the upstream said: httputil takes -1 for a stream, and flushes it after every read. A
// strong ETag stays too: callers send it back in If-Match, and the upstream must know it.
func (x *exchange) rewriteBody(res *http.Response) bool {
	if !x.route.RewriteLinks || !rewritable(res) {
		return false
	}
	address := x.address()
	if address == "" && x.route.Query == "" {
		return false
	}
	for _, name := range aboutBytes {
		delete(res.Header, name)
	}
	if name := x.route.Query; name != "" {
		name, pair := url.QueryEscape(name)+"=", x.pair()
		res.Body = &editedBody{src: res.Body, buffers: &x.proxy.buffers, finder: &pairFinder{pair: []byte(pair), keep: len(name)}}
	}
	if address != "" {
		with := address + x.prefix
		res.Body = &editedBody{src: res.Body, buffers: &x.proxy.buffers, finder: &linkFinder{own: &x.upstream.own, with: with}}
	}
	return true
}

// rewritable reports whether an answer is JSON as it is: whole, and not encoded. One of no length has no body; a tunnel is such.
func rewritable(res *http.Response) bool {
	types, encodings := res.Header["Content-Type"], res.Header["Content-Encoding"]
	return res.ContentLength != 0 && res.StatusCode != http.StatusPartialContent && len(types) == 1 && isJSON(types[0]) &&
		(len(encodings) == 0 || len(encodings) == 1 && strings.EqualFold(encodings[0], "identity"))
}

// isJSON reports whether a media type is JSON, or a format made of it (RFC 6839 section 3.1).
func isJSON(mediaType string) bool {
	mediaType, _, _ = strings.Cut(mediaType, ";")
	mediaType = strings.TrimSpace(mediaType)
	if strings.EqualFold(mediaType, "application/json") {
		return true
	}
	const suffix = "+json"
	i := len(mediaType) - len(suffix)
	return i > 0 && strings.EqualFold(mediaType[i:], suffix)
}

// linkFinder finds JSON strings that begin with a URL of the upstream. The scheme's first slash leads to them: it is rarer than
// quotes and colons.
type linkFinder struct {
	own     *ownURL
	with    string
	escaped string // with, for strings whose slashes are escaped; made when it is needed
	inside  bool   // of a string, or of what looks like one: nothing begins before its quote
}

func (f *linkFinder) find(b []byte, before byte, last bool) (start, end int, with string) {
	at := 0
	for {
		if f.inside {
			quote := bytes.IndexByte(b[at:], '"')
			if quote < 0 {
				return len(b), len(b), ""
			}
			at += quote
			f.inside = false
		}
		i := bytes.IndexByte(b[at:], '/')
		if i < 0 {
			return f.undecided(b, at, before, last)
		}
		slash := at + i
		at = slash + 1
		start, candidate := f.beginning(b, slash, before)
		if !candidate {
			continue
		}
		end, v := f.match(b[start:])
		switch {
		case v == own:
			f.inside = true
			return start, start + end, f.replacement(b[slash-1] == '\\')
		case v == unfinished && !last:
			return start - 1, start - 1, ""
		}
		f.inside = true
	}
}

// beginning returns where a URL whose scheme ends before b[slash] begins, if a JSON string begins there too.
func (f *linkFinder) beginning(b []byte, slash int, before byte) (int, bool) {
	colon := slash - 1
	if colon >= 0 && b[colon] == '\\' {
		colon--
	}
	start := colon + 1 - len(f.own.scheme)
	if start < 1 || b[colon] != ':' || b[start-1] != '"' {
		return 0, false
	}
	if start > 1 {
		before = b[start-2]
	}
	return start, before != '\\'
}

// match matches a URL of the upstream at the beginning of b, and sees to it that it ends there.
func (f *linkFinder) match(b []byte) (end int, v verdict) {
	end, v = matchURL(f.own, b, true)
	if v != own {
		return end, v
	}
	if end < len(b) {
		switch b[end] {
		case '/', '?', '#', '{', '"': // a brace begins a URI template (RFC 6570)
			return end, own
		case '\\':
			if end+1 < len(b) && b[end+1] == '/' {
				return end, own
			}
			if end+1 < len(b) {
				return end, foreign
			}
		default:
			return end, foreign
		}
	}
	return end, unfinished
}

// undecided holds back what b ends with if it could become a string that begins with the scheme. There is no slash in b[at:].
func (f *linkFinder) undecided(b []byte, at int, before byte, last bool) (start, end int, with string) {
	tail := max(at, len(b)-len(`"`)-len(f.own.scheme)-len(`\`))
	quote := bytes.LastIndexByte(b[tail:], '"')
	if last || quote < 0 {
		return len(b), len(b), ""
	}
	quote += tail
	if quote > 0 {
		before = b[quote-1]
	}
	if _, v := matchURL(f.own, b[quote+1:], true); before == '\\' || v != unfinished {
		return len(b), len(b), ""
	}
	return quote, quote, ""
}

func (f *linkFinder) replacement(escaped bool) string {
	if !escaped {
		return f.with
	}
	if f.escaped == "" {
		f.escaped = escapeSlashes(f.with)
	}
	return f.escaped
}

// pairFinder finds the credential that an upstream has echoed out of the query.
type pairFinder struct {
	pair []byte
	keep int // of it: the name
}

func (f *pairFinder) find(b []byte, _ byte, last bool) (start, end int, with string) {
	if i := bytes.Index(b, f.pair); i >= 0 {
		return i + f.keep, i + len(f.pair), ""
	}
	if last {
		return len(b), len(b), ""
	}
	for at := max(0, len(b)-len(f.pair)+1); at < len(b); at++ {
		i := bytes.IndexByte(b[at:], f.pair[0])
		if i < 0 {
			break
		}
		if at += i; bytes.HasPrefix(f.pair, b[at:]) {
			return at, at, ""
		}
	}
	return len(b), len(b), ""
}
