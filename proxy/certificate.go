package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// sanTable finds callers by the subject alternative names of client certificates: URIs, email and IP addresses as they are, DNS names
// without regard to case. A subject's common name names nobody.
type sanTable struct {
	uris   map[url.URL]*caller // without user, which would be a pointer
	hosts  map[string]*caller  // in lower case
	emails map[string]*caller
	ips    map[netip.Addr]*caller
}

func newSANTable() sanTable {
	return sanTable{make(map[url.URL]*caller), make(map[string]*caller), make(map[string]*caller), make(map[netip.Addr]*caller)}
}

var errSAN = errors.New("a SAN must be a URI without user, or dns:NAME, email:ADDRESS or ip:ADDRESS")

// add makes a name stand for c. See Caller.SANs for its form.
func (t sanTable) add(name string, c *caller) error {
	if strings.Contains(name, "://") {
		u, err := url.Parse(name)
		if err != nil || u.User != nil {
			return errSAN
		}
		return addTo(t.uris, *u, c)
	}
	switch kind, value, _ := strings.Cut(name, ":"); {
	case value == "":
		return errSAN
	case kind == "dns":
		return addTo(t.hosts, strings.ToLower(value), c)
	case kind == "email":
		return addTo(t.emails, value, c)
	case kind == "ip":
		ip, err := netip.ParseAddr(value)
		if err != nil {
			return errSAN
		}
		return addTo(t.ips, ip.Unmap(), c)
	}
	return errSAN
}

func addTo[K comparable](m map[K]*caller, key K, c *caller) error {
	if m[key] != nil {
		return errors.New("another caller has the same SAN")
	}
	m[key] = c
	return nil
}

// find returns whom a verified certificate names at this time, or nil. One with names of two callers names none: whom its maker
// meant cannot be told.
func (t sanTable) find(leaf *x509.Certificate, now time.Time) *caller {
	if leaf == nil || now.After(leaf.NotAfter) { // a connection may outlive the certificate that opened it
		return nil
	}
	var found onlyCaller
	for _, u := range leaf.URIs {
		found.add(t.uris[*u])
	}
	for _, host := range leaf.DNSNames {
		found.add(t.hosts[strings.ToLower(host)])
	}
	for _, email := range leaf.EmailAddresses {
		found.add(t.emails[email])
	}
	for _, ip := range leaf.IPAddresses {
		addr, _ := netip.AddrFromSlice(ip)
		found.add(t.ips[addr.Unmap()])
	}
	if found.several {
		return nil
	}
	return found.one
}

// onlyCaller is the one caller that several names have in common.
type onlyCaller struct {
	one     *caller
	several bool
}

func (o *onlyCaller) add(c *caller) {
	switch {
	case c == nil || c == o.one:
	case o.one == nil:
		o.one = c
	default:
		o.several = true
	}
}

// verifiedLeaf returns the client certificate that the listener has verified, or nil. One that was merely shown proves nothing.
func verifiedLeaf(state *tls.ConnectionState) *x509.Certificate {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}
