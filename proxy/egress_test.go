package proxy

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestANameMayOnlyResolveToPublicAddresses(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.5", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1", "169.254.1.1", "172.16.0.1",
		"172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
		"203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::2", "::8.8.8.8", "::ffff:10.0.0.5", "::ffff:127.0.0.1", "::ffff:0:8.8.8.8", "100::1", "5f00::1",
		"64:ff9b::10.0.0.5", "64:ff9b::127.0.0.1", "64:ff9b:1::8.8.8.8", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1",
		"ff02::1", "2001::1", "2001:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "2002:a00:5::1",
		"3fff::1", "4000::1",
	} {
		ip := netip.MustParseAddr(s)
		require.NotEmpty(t, judge(ip, byName, nil), s)
		require.NotEqual(t, metadata, judge(ip, byName, nil), s)
	}
	for _, s := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.0.1",
		"172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.1.1", "192.169.0.1", "198.17.0.1", "198.20.0.1", "223.255.255.255",
		"::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2000::1", "2001:200::1", "2606:4700::1111", "2003::1", "2a00:1450::1", "3ffe::1",
	} {
		require.Empty(t, judge(netip.MustParseAddr(s), byName, nil), s)
	}
}

// The log says which rule it was.
func TestEveryNetworkIsCalledByItsName(t *testing.T) {
	for s, is := range map[string]string{
		"10.0.0.5": "private (RFC 1918)", "100.64.0.1": "shared address space", "127.0.0.1": "loopback", "169.254.1.1": "link-local",
		"192.0.2.1": "for documentation", "255.255.255.255": "broadcast", "255.255.255.254": "reserved", "::1": "loopback", "::": "unspecified",
		"::2": "IPv4-compatible", "64:ff9b:1::1": "NAT64 of a local network", "fd12::1": "private (RFC 4193)", "fe80::1": "link-local",
		"fec0::1": "site-local", "ff02::1": "multicast", "2001::1": "Teredo", "2001:1::1": "for protocols", "2001:db8::1": "for documentation",
		"2002:808:808::1": "6to4", "4000::1": "outside of IPv6's global unicast",
	} {
		require.Contains(t, judge(netip.MustParseAddr(s), byName, nil), is, s)
	}
}

func TestAllowPrivateOpensItsNetworksAlone(t *testing.T) {
	allow := networks("10.1.0.0/16", "fd12::/32", "169.254.7.7/32", "2002::/16", "64:ff9b:1::/48", "::/96")
	for s, refused := range map[string]bool{
		"10.1.0.1": false, "::ffff:10.1.0.1": false, "64:ff9b::10.1.0.1": false, "fd12::1": false, "169.254.7.7": false,
		"64:ff9b:1::10.0.0.1": false, "2002:a01:1::1": false, "2002:808:808::1": false, "::10.1.0.1": false,
		"10.2.0.1": true, "::ffff:10.2.0.1": true, "64:ff9b::10.2.0.1": true, "fd13::1": true, "169.254.7.8": true, "127.0.0.1": true,
		"2002:a02:1::1": true, "2002:7f00:1::1": true, "::10.2.0.1": true, "::127.0.0.1": true,
	} {
		require.Equal(t, refused, judge(netip.MustParseAddr(s), byName, allow) != "", s)
	}
}

func TestNothingAllowsMetadataServices(t *testing.T) {
	allow := networks("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1")
	for _, s := range []string{
		"169.254.169.254", "169.254.169.253", "169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.10.10", "169.254.42.42", "100.100.100.200",
		"100.96.0.96", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
		"fd00:42::42", "fd00:a9fe:a9fe::1", "fd00:100::100:200", "fe80::a9fe:a9fe", "fe80::a9fe:a9fe%eth0",
		"::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1",
		"64:ff9b:1::169.254.169.254", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00:0",
	} {
		for _, how := range []written{byName, byAddress, asLocalhost} {
			require.Equal(t, metadata, judge(netip.MustParseAddr(s), how, allow), s)
		}
		require.ErrorContains(t, CheckAddress(netip.MustParseAddr(s), allow), "it cannot be an upstream")
	}
}

func TestWhatIsWrittenAsAnAddressMayBePrivate(t *testing.T) {
	for _, s := range []string{"127.0.0.1", "10.0.0.5", "172.16.0.1", "192.168.0.1", "::1", "fd12::1", "::ffff:127.0.0.1", "8.8.8.8"} {
		require.NoError(t, CheckAddress(netip.MustParseAddr(s), nil), s)
	}
	for _, s := range []string{"169.254.1.1", "fe80::1", "0.0.0.0", "::", "100.64.0.1", "224.0.0.1", "2002:a00:5::1", "64:ff9b:1::1", "::10.0.0.5"} {
		ip := netip.MustParseAddr(s)
		require.ErrorContains(t, CheckAddress(ip, nil), "list the address in allow_private", s)
		require.NoError(t, CheckAddress(ip, []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}), s)
	}
}

func TestLocalhostIsLoopbackAlone(t *testing.T) {
	require.Empty(t, judge(netip.MustParseAddr("127.0.0.1"), asLocalhost, nil))
	require.Empty(t, judge(netip.MustParseAddr("::1"), asLocalhost, nil))
	for _, s := range []string{"10.0.0.5", "8.8.8.8", "64:ff9b::8.8.8.8", "fd12::1"} {
		require.NotEmpty(t, judge(netip.MustParseAddr(s), asLocalhost, networks("10.0.0.0/8", "fd12::/32")), s)
	}
}

func TestHostsAreTakenAsTheyAreWritten(t *testing.T) {
	for addr, want := range map[string]written{
		"127.0.0.1:80": byAddress, "[::1]:80": byAddress, "[fe80::1%eth0]:80": byAddress, "localhost:80": asLocalhost, "LocalHost:80": asLocalhost,
		"localhost.:80": byName, "a.localhost:80": byName, "127.1:80": byName, "0x7f.0.0.1:80": byName, "2130706433:80": byName,
		"127.0.0.1.example.com:80": byName, "": byName,
	} {
		require.Equal(t, want, writtenAs(addr), addr)
	}
}

// refused asserts that a request is denied, that the caller is not told where the name led, and that the log is.
func refused(t *testing.T, b *bench, address, is string) {
	t.Helper()
	res, body := b.get(t, "/graph/x")
	got := requireProblem(t, res, body, 502, "upstream_denied")
	require.False(t, got.Retryable)
	require.Contains(t, got.Detail, "allow_private")
	require.NotContains(t, body, address)
	require.Contains(t, b.logs.String(), address)
	require.Contains(t, b.logs.String(), is)
	require.NotContains(t, b.logs.String(), "CANARY")
}

func TestANameThatLeadsInsideIsDenied(t *testing.T) {
	_, resolver := resolveTo(t, addrs("127.0.0.1", "::1"))
	b := start(t, nil, under("api.example.com", resolver))
	refused(t, b, "127.0.0.1", "it is loopback")
	require.Empty(t, b.requests())
}

func TestANameThatLeadsInsideIsDeniedOverTLS(t *testing.T) {
	_, resolver := resolveTo(t, addrs("127.0.0.1"))
	b := start(t, nil, overTLS(true), under("example.com", resolver))
	refused(t, b, "127.0.0.1", "it is loopback")
	require.Empty(t, b.requests())
}

func TestANameMayLeadInsideWhereThatIsConfigured(t *testing.T) {
	_, resolver := resolveTo(t, addrs("127.0.0.1"))
	b := start(t, nil, overTLS(true), under("example.com", resolver, "127.0.0.1/32"))
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 200, res.StatusCode)
	require.Len(t, b.requests(), 1)
}

// The address that is judged is the one that is connected to: there is no second resolution in between that could answer otherwise.
func TestANameThatIsRebound(t *testing.T) {
	n, resolver := resolveTo(t, addrs("127.0.0.1"), addrs("127.0.0.2"))
	b := start(t, nil, under("rebound.example.com", resolver, "127.0.0.1/32"))
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, 1, n.asked(), "one look-up for one connection")

	require.NoError(t, b.proxy.Close()) // the connection, so that the name is resolved again
	refused(t, b, "127.0.0.2", "it is loopback")
	require.Equal(t, 2, n.asked())
	require.Len(t, b.requests(), 1)
}

func TestTheAllowedAddressesOfANameAreTried(t *testing.T) {
	for name, answer := range map[string][]netip.Addr{
		"allowed last":  addrs("10.0.0.5", "169.254.169.254", "127.0.0.1"),
		"allowed first": addrs("127.0.0.1", "10.0.0.5"),
		"two families":  addrs("::1", "fd00:ec2::254", "127.0.0.1"),
		"mapped, too":   addrs("fe80::1", "::ffff:127.0.0.1"),
	} {
		t.Run(name, func(t *testing.T) {
			_, resolver := resolveTo(t, answer)
			b := start(t, nil, under("api.example.com", resolver, "127.0.0.1/32"))
			res, _ := b.get(t, "/graph/x")
			require.Equal(t, 200, res.StatusCode)
		})
	}
}

func TestAnAllowedAddressWhereNobodyListensIsUnreachable(t *testing.T) {
	_, resolver := resolveTo(t, addrs("10.0.0.5", "127.0.0.1"))
	b := start(t, nil, under("api.example.com", resolver, "127.0.0.1/32"))
	b.upstream.Close()
	res, body := b.get(t, "/graph/x")
	require.True(t, requireProblem(t, res, body, 502, "upstream_unreachable").Retryable)
}

func TestANameThatDoesNotResolveIsUnreachable(t *testing.T) {
	_, resolver := resolveTo(t, nil)
	b := start(t, nil, under("api.example.com", resolver))
	res, body := b.get(t, "/graph/x")
	require.True(t, requireProblem(t, res, body, 502, "upstream_unreachable").Retryable)
}

func TestLocalhostIsReachedWithoutMore(t *testing.T) {
	b := start(t, nil, under("localhost", nil))
	res, _ := b.get(t, "/graph/x")
	require.Equal(t, 200, res.StatusCode)
}

func TestAnAddressThatCannotBeWrittenIsDenied(t *testing.T) {
	for host, is := range map[string]string{
		"169.254.169.254": metadata, "[fe80::1]": "link-local", "0.0.0.0": "this network", "[::7f00:1]": "IPv4-compatible",
	} {
		b := start(t, nil, onRoute(func(r *Route) {
			r.Target = func(tokenstore.Org) (Target, error) { return Target{BaseURL: "http://" + host + ":9"}, nil }
		}))
		refused(t, b, host, "it is "+is)
	}
}

func TestAnAddressThatCannotBeReadIsDenied(t *testing.T) {
	var a attempt
	require.Error(t, a.control("tcp4", "nowhere", nil))
	require.False(t, a.allowed.Load())
}

// FuzzEgress asserts that no way to write an IPv4 address in IPv6 is judged more leniently than the address, and that what Go calls
// something else than public is never taken for it.
func FuzzEgress(f *testing.F) {
	for _, s := range special {
		ip := s.network.Addr().As16()
		f.Add(ip[:], uint8(8))
	}
	for _, n := range metadataServices {
		ip := n.Addr().As16()
		f.Add(ip[:], uint8(32))
	}
	f.Add(netip.MustParseAddr("8.8.8.8").AsSlice(), uint8(1))
	f.Fuzz(func(t *testing.T, raw []byte, bits uint8) {
		if len(raw) < 16 {
			raw = append(make([]byte, 16-len(raw)), raw...)
		}
		v6 := netip.AddrFrom16([16]byte(raw[:16]))
		v4 := netip.AddrFrom4([4]byte(raw[12:16]))
		own, err := v4.Prefix(int(bits % 33))
		require.NoError(t, err)
		for _, how := range []written{byName, byAddress, asLocalhost} {
			for _, allow := range [][]netip.Prefix{nil, {own}, {own, compatible, sixToFour}, {compatible, sixToFour}} {
				plain := judge(v4, how, allow)
				for form, stricter := range forms(v4) {
					is := judge(form, how, allow)
					if plain != "" || !stricter {
						require.Equal(t, plain == "", is == "", "%s and %s", v4, form)
					}
				}
			}
		}
		for _, ip := range []netip.Addr{v4, v6} {
			if judge(ip, byName, nil) == "" {
				ip = ip.Unmap()
				require.True(t, ip.IsGlobalUnicast() && !ip.IsPrivate(), ip)
			}
		}
	})
}

// forms are the IPv6 addresses that stand for an IPv4 address, and (true) those that lead to it and may be refused for that alone.
func forms(v4 netip.Addr) map[netip.Addr]bool {
	at := func(prefix string, i int) netip.Addr {
		ip := netip.MustParseAddr(prefix).As16()
		b := v4.As4()
		copy(ip[i:], b[:])
		return netip.AddrFrom16(ip)
	}
	all := map[netip.Addr]bool{at("::ffff:0:0", 12): false, at("64:ff9b::", 12): false, at("2002::", 2): true}
	if compat := at("::", 12); !compat.IsLoopback() && !compat.IsUnspecified() {
		all[compat] = true
	}
	return all
}
