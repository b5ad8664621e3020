package proxy

import "net/netip"

// metadata is what judge calls the addresses that no configuration can allow.
const metadata = "a cloud's metadata service"

// metadataServices are where clouds hand out an instance's own credentials, and the platform services beside them.
var metadataServices = networks(
	"169.254.169.0/24",       // most clouds at .254; AWS's DNS and time
	"169.254.170.0/24",       // AWS: credentials of ECS tasks and EKS pods
	"169.254.0.23/32",        // Tencent Cloud
	"169.254.10.10/32",       // Tencent Cloud
	"169.254.42.42/32",       // Scaleway
	"100.100.100.200/32",     // Alibaba Cloud
	"100.96.0.96/32",         // Volcano Engine
	"168.63.129.16/32",       // Azure, on a public address
	"192.0.0.192/32",         // Oracle Cloud
	"fd00:ec2::/32",          // AWS
	"fd20:ce::254/128",       // Google Cloud
	"fd00:c1::a9fe:a9fe/128", // Oracle Cloud
	"fd00:42::42/128",        // Scaleway
	"fd00:a9fe:a9fe::1/128",  // Akamai
	"fd00:100::100:200/128",  // Alibaba Cloud
	"fe80::a9fe:a9fe/128",    // OpenStack
)

// globalUnicast is all that IANA has given out of IPv6 for public use.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// special are the networks of IANA's special-purpose registries (RFC 6890) that are not public, or not for servers, and in
// IPv6 those inside of globalUnicast and those with a name. The first that fits counts.
var special = []struct {
	network netip.Prefix
	is      string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network (RFC 1122)"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private (RFC 1918)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared address space (RFC 6598)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private (RFC 1918)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "for protocols (RFC 6890)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation (RFC 5737)"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay (RFC 7526)"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private (RFC 1918)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks (RFC 2544)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation (RFC 5737)"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation (RFC 5737)"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved (RFC 1112)"},

	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{compatible, "IPv4-compatible (RFC 4291)"},
	{localNAT64, "NAT64 of a local network (RFC 8215)"},
	{netip.MustParsePrefix("fc00::/7"), "private (RFC 4193)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local (RFC 3879)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001::/32"), "Teredo (RFC 4380)"},
	{netip.MustParsePrefix("2001::/23"), "for protocols (RFC 2928)"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation (RFC 3849)"},
	{sixToFour, "6to4 (RFC 3056)"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation (RFC 9637)"},
}

func networks(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}
