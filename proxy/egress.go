package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
)

// CheckAddress says why an upstream whose URL names this address itself would be refused; nil: it would not. Loopback and private
// addresses are what an operator means who writes them; what else is not public needs to be in allowPrivate.
func CheckAddress(ip netip.Addr, allowPrivate []netip.Prefix) error {
	switch is := judge(ip, byAddress, allowPrivate); is {
	case "":
		return nil
	case metadata:
		return fmt.Errorf("is %s: it cannot be an upstream", is)
	default:
		return fmt.Errorf("is %s: list the address in allow_private if you mean it", is)
	}
}

// dial connects to a host and port, without TLS. Every address that the host resolves to is judged where it is connected to, so that no second
// resolution can lead elsewhere, and those that are allowed are tried.
func (d dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	a := attempt{written: writtenAs(addr), allow: d.allowPrivate}
	conn, err := (&net.Dialer{Timeout: d.timeout, Resolver: d.resolver, Control: a.control}).DialContext(ctx, network, addr)
	switch {
	case err == nil:
		return conn, nil
	case a.refused.Load() != nil && !a.allowed.Load():
		return nil, &deniedError{a.refused.Load()}
	default:
		return nil, &dialError{err}
	}
}

// deniedError says that a host has no address but such as the egress rules refuse.
type deniedError struct{ last *refusal }

func (e *deniedError) Error() string { return e.last.Error() }

// refusal is an address that was not connected to.
type refusal struct{ address, is string }

func (r *refusal) Error() string { return "the egress rules refuse " + r.address + ": it is " + r.is }

// attempt is one dial. Its addresses may be tried at the same time.
type attempt struct {
	written written
	allow   []netip.Prefix
	allowed atomic.Bool             // at least one address was
	refused atomic.Pointer[refusal] // the last one that was
}

// control is called with each address between the making of its socket and the connecting.
func (a *attempt) control(_, address string, _ syscall.RawConn) error {
	is := "no address"
	if ap, err := netip.ParseAddrPort(address); err == nil {
		is = judge(ap.Addr(), a.written, a.allow)
	}
	if is == "" {
		a.allowed.Store(true)
		return nil
	}
	r := &refusal{address, is}
	a.refused.Store(r)
	return r
}

// written is how an upstream's URL names its host.
type written int

const (
	byName      written = iota
	byAddress           // an IP address
	asLocalhost         // the name localhost
)

func writtenAs(addr string) written {
	host, _, _ := net.SplitHostPort(addr) // without a port, nothing is dialled
	if strings.EqualFold(host, "localhost") {
		return asLocalhost
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return byAddress
	}
	return byName
}

// judge says what an address is that may not be connected to, and is empty for one that may. An IPv6 address that stands for an
// IPv4 one is judged as that; one that only leads to it is refused unless it is allowed, and so must be the other.
func judge(ip netip.Addr, how written, allow []netip.Prefix) (is string) {
	ip = ip.WithZone("").Unmap()
	if nat64.Contains(ip) {
		ip = ipv4At(ip, 12, 13, 14, 15)
	}
	if isMetadata(ip) {
		return metadata
	}
	if how == asLocalhost {
		if !ip.IsLoopback() {
			return "not loopback, but localhost"
		}
		return ""
	}
	if how == byAddress && (ip.IsLoopback() || ip.IsPrivate()) || contained(ip, allow) {
		if v4, ok := leadsTo(ip); ok {
			return judge(v4, how, allow)
		}
		return ""
	}
	return specialty(ip)
}

func contained(ip netip.Addr, networks []netip.Prefix) bool {
	for _, n := range networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// Networks of addresses that hold an IPv4 address.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215: at one of the places of RFC 6052 section 2.2
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056
	compatible = netip.MustParsePrefix("::/96")          // RFC 4291 section 2.5.5.1
)

// leadsTo returns the IPv4 address that a 6to4 or IPv4-compatible address leads to.
func leadsTo(ip netip.Addr) (netip.Addr, bool) {
	switch {
	case sixToFour.Contains(ip):
		return ipv4At(ip, 2, 3, 4, 5), true
	case compatible.Contains(ip) && !ip.IsLoopback() && !ip.IsUnspecified():
		return ipv4At(ip, 12, 13, 14, 15), true
	}
	return netip.Addr{}, false
}

func ipv4At(ip netip.Addr, a, b, c, d int) netip.Addr {
	bytes := ip.As16()
	return netip.AddrFrom4([4]byte{bytes[a], bytes[b], bytes[c], bytes[d]})
}

// isMetadata tells whether an address is, or leads to, a service that gives the machine's own credentials to whoever asks.
func isMetadata(ip netip.Addr) bool {
	if contained(ip, metadataServices) {
		return true
	}
	if v4, ok := leadsTo(ip); ok {
		return contained(v4, metadataServices)
	}
	return localNAT64.Contains(ip) && (contained(ipv4At(ip, 6, 7, 9, 10), metadataServices) ||
		contained(ipv4At(ip, 7, 9, 10, 11), metadataServices) ||
		contained(ipv4At(ip, 9, 10, 11, 12), metadataServices) ||
		contained(ipv4At(ip, 12, 13, 14, 15), metadataServices))
}

// specialty says what an address is instead of public, and is empty for a public one.
func specialty(ip netip.Addr) string {
	for _, s := range special {
		if s.network.Contains(ip) {
			return s.is
		}
	}
	if ip.Is6() && !globalUnicast.Contains(ip) {
		return "outside of IPv6's global unicast addresses"
	}
	return ""
}
