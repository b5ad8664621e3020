package config

import (
	"errors"
	"net/netip"
	"net/url"
)

// readUpstream reads where requests go, and to which addresses beside the public ones its name may resolve.
func (in *Integration) readUpstream(o *object) {
	upstream, allow := o.need("upstream"), o.at("allow_private")
	setList(allow, &in.AllowPrivate, func(s string) (netip.Prefix, error) {
		n, err := network(s)
		if err == nil && n.IsSingleIP() { // what nothing allows cannot be listed
			err = o.checkAddress(n.Addr(), []netip.Prefix{n})
		}
		return n, err
	})
	if !set(upstream, &in.Upstream, upstreamURL) {
		return
	}
	// A placeholder makes no address: the host ends with two labels that are written out, the last one no number.
	u, err := url.Parse(sample(in.Upstream))
	if err != nil {
		return
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := o.checkAddress(ip, in.AllowPrivate); err != nil {
			upstream.problem("%v", err)
		}
	}
}

// standIns are the IPv6 addresses that are judged as the IPv4 address in them.
var standIns = []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("64:ff9b::/96")}

// network is a CIDR, or a single address.
func network(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if ip, single := netip.ParseAddr(s); single == nil && ip.Zone() == "" {
		n, err = netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	switch {
	case err != nil:
		return n, errors.New("must be a network such as 10.1.0.0/16 or fd12:3456::/32, or a single address")
	case n.Bits() == 0:
		return n, errors.New("is every address: list the networks that the name resolves to")
	case n != n.Masked():
		return n, errors.New("has bits set after its prefix: write the first address of the network, or a single address without a slash")
	}
	for _, other := range standIns {
		if other.Bits() <= n.Bits() && other.Contains(n.Addr()) {
			return n, errors.New("stands for IPv4 addresses: write them as IPv4")
		}
	}
	return n, nil
}
