package proxy

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// names is a DNS server on loopback that knows one name, whatever it is called.
type names struct {
	mu      sync.Mutex     // guards answers and lookups
	answers [][]netip.Addr // to one look-up after the other; the last stays
	lookups int
}

// resolveTo serves the answers and returns their resolver.
func resolveTo(t *testing.T, answers ...[]netip.Addr) (*names, *net.Resolver) {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = socket.Close() })
	n := &names{answers: answers}
	go n.serve(socket) // ends with the socket
	return n, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", socket.LocalAddr().String())
	}}
}

func (n *names) serve(socket net.PacketConn) {
	buf := make([]byte, 512)
	for {
		size, from, err := socket.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = socket.WriteTo(n.answer(buf[:size]), from) // the resolver asks again
	}
}

// answer answers a query (RFC 1035 section 4). A client asks for A and AAAA side by side: a look-up is counted by its A.
func (n *names) answer(query []byte) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	n.mu.Lock()
	defer n.mu.Unlock()
	current := n.answers[min(n.lookups, len(n.answers)-1)]
	if kind == 1 {
		n.lookups++
	}
	out := append([]byte{}, query[:2]...)
	out = append(out, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	out = append(out, query[12:end+5]...)
	for _, ip := range current {
		if (kind == 1) == ip.Is4() {
			out[7]++
			out = append(out, 0xc0, 12, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(ip.BitLen()/8))
			out = append(out, ip.AsSlice()...)
		}
	}
	return out
}

func (n *names) asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lookups
}

// under lets the route reach the bench's upstream under a host of this name, which resolver resolves.
func under(host string, resolver *net.Resolver, allow ...string) change {
	return func(b *bench, _ *Config, r *Route) {
		r.resolver, r.AllowPrivate = resolver, networks(allow...)
		r.Target = func(tokenstore.Org) (Target, error) {
			u, err := url.Parse(b.upstream.URL)
			if err != nil {
				return Target{}, err
			}
			return Target{BaseURL: u.Scheme + "://" + net.JoinHostPort(host, u.Port())}, nil
		}
	}
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}
