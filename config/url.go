package config

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// endpointURL is a template of an address at the provider. Its query is kept.
func endpointURL(s string) (string, error) { return s, checkURL(s, true, true) }

// upstreamURL is a template of the address that a route stands for. A slash at its end is removed.
func upstreamURL(s string) (string, error) {
	return strings.TrimSuffix(s, "/"), checkURL(s, true, false)
}

// publicURL is the address of a listener as others see it. A slash at its end is removed.
func publicURL(s string) (string, error) {
	return strings.TrimSuffix(s, "/"), checkURL(s, false, false)
}

// issuerURL is compared byte for byte (RFC 9207 section 2.4), so it stays as it is.
func issuerURL(s string) (string, error) { return s, checkURL(s, false, false) }

// urlCharacters are those of RFC 3986, without the ones that no URL needs unencoded.
var urlCharacters = regexp.MustCompile(`^[A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]*$`)

// checkURL says what is wrong with an absolute URL: https, or http to a loopback host; no userinfo, no fragment, no dot
// segments. Placeholders may stand in the path, the query and, before two labels that are written out, in the host.
func checkURL(s string, templated, query bool) error {
	t, err := parseTemplate(s)
	if err != nil {
		return err
	}
	if !templated && len(t.placeholders()) > 0 {
		return errors.New("may not have placeholders")
	}
	scheme, rest, ok := strings.Cut(s, "://")
	switch {
	case strings.Contains(s, "#"):
		return errors.New("has a fragment: remove # and what follows")
	case !ok || scheme != "https" && scheme != "http":
		return errors.New("must begin with https:// (or, with a loopback host, http://)")
	case !urlCharacters.MatchString(sample(s)):
		return errors.New("has a character that must be percent-encoded in a URL, or none at all")
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	if err := checkAuthority(authority, scheme == "https"); err != nil {
		return err
	}
	path, search, hasQuery := strings.Cut(sample(tail), "?")
	if hasQuery && !query {
		return errors.New("has a query: remove ? and what follows")
	}
	if _, err := url.QueryUnescape(search); err != nil {
		return errors.New("has a malformed % escape in its query")
	}
	return checkPath(path)
}

// checkAuthority says what is wrong with the part between :// and the path.
func checkAuthority(authority string, secure bool) error {
	if strings.Contains(authority, "@") {
		return errors.New("has a user or password before the host: remove it")
	}
	host, port, hasPort := strings.Cut(authority, ":")
	if strings.HasPrefix(authority, "[") { // IPv6
		var after string
		host, after, _ = strings.Cut(authority, "]")
		host += "]"
		port, hasPort = strings.CutPrefix(after, ":")
		if after != "" && !hasPort {
			return errHost
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
		return errors.New("has a port that is not a number from 1 to 65535")
	}
	if !validHost(sample(host)) {
		return errHost
	}
	if !secure && !loopback(host) {
		return errors.New("must begin with https://: http:// is for loopback hosts only")
	}
	return checkHostTemplate(host)
}

var errHost = errors.New("has no valid host name or IP address")

// checkHostTemplate keeps the values of placeholders to sub-domains of a domain that is written out: whoever chooses a
// value cannot choose whose host gets the credential.
func checkHostTemplate(host string) error {
	i := strings.LastIndex(host, "}")
	if i < 0 {
		return nil
	}
	domain, ok := strings.CutPrefix(host[i+1:], ".")
	if !ok || !strings.Contains(domain, ".") {
		return errors.New("has a placeholder in its host that is not followed by a domain of two labels or more, as in {vars.shop}.example.com")
	}
	return nil
}

// label is one label of a host name. Underscores occur in practice.
var label = upTo(63, `^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?$`)

// lastLabel returns the last label of a host name, and whether it is one.
func lastLabel(host string) (last string, ok bool) {
	for last = range strings.SplitSeq(host, ".") {
		if !label.MatchString(last) {
			return "", false
		}
	}
	return last, len(host) <= 253
}

// validHost tells whether host is an IP address, IPv6 in brackets, or an ASCII host name. Names that end in a number, which
// some resolvers take for an IP address, are not.
func validHost(host string) bool {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Is4()
	}
	last, ok := lastLabel(host)
	return ok && strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(strings.ToLower(last), "0x")
}

// loopback tells whether a host, as written in a URL or listen address, is this machine.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}
