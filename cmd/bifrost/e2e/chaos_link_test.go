package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// chaosLinks are the network of one replica: everything that it reaches, it reaches through a proxy of its own.
type chaosLinks struct {
	redis    []*toxiproxy.Proxy // the servers and the Sentinel
	provider *toxiproxy.Proxy
	sentinel string // where the Sentinel seems to be
}

// newChaosLinks lays the links to the servers, the Sentinel and the provider. A Sentinel tells its clients where the primary is:
// what it says is changed on the way into the addresses of the links.
func newChaosLinks(t *testing.T, name string, servers []string, sentinel, provider string) *chaosLinks {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	lay := func(what, to string) *toxiproxy.Proxy {
		p := toxiproxy.NewProxy(server, name+"-"+what, "127.0.0.1:0", to)
		require.NoError(t, p.Start())
		t.Cleanup(p.Stop)
		return p
	}
	l := &chaosLinks{provider: lay("provider", provider)}
	var ports []string
	for _, address := range servers {
		p := lay("redis", address)
		l.redis = append(l.redis, p)
		ports = append(ports, portOf(t, address), portOf(t, p.Listen))
	}
	p := lay("sentinel", sentinel)
	l.redis = append(l.redis, p)
	l.sentinel = translate(t, p.Listen, strings.NewReplacer(ports...))
	return l
}

// translate listens for clients of a Sentinel and changes ports in what it tells them: they have five digits both before and
// after, so that no length changes.
func translate(t *testing.T, sentinel string, ports *strings.Replacer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var links sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close() // Accept returns
		links.Wait()
	})
	ctx := t.Context()
	links.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			links.Go(func() { translated(ctx, client, sentinel, ports) })
		}
	})
	return l.Addr().String()
}

func translated(ctx context.Context, client net.Conn, sentinel string, ports *strings.Replacer) {
	defer client.Close()
	server, err := net.Dial("tcp", sentinel)
	if err != nil {
		return
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() {
		_ = client.Close() // the copies end
		_ = server.Close()
	})()
	go func() { // ends with the client's connection
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	for line := range lines(server) {
		if _, err := io.WriteString(client, ports.Replace(line)+"\n"); err != nil {
			return
		}
	}
}

// lines yields what is read, line by line, without the newlines.
func lines(r io.Reader) iter.Seq[string] {
	return func(yield func(string) bool) {
		buffered := bufio.NewReader(r)
		for {
			line, err := buffered.ReadString('\n')
			if err != nil || !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.Len(t, port, 5, "the ports of this machine must have the same length")
	return port
}

// refuse closes the links to Redis, and refuses new ones.
func (l *chaosLinks) refuse() {
	for _, p := range l.redis {
		p.Stop()
	}
}

// accept undoes refuse.
func (l *chaosLinks) accept() error {
	for _, p := range l.redis {
		if err := p.Start(); err != nil {
			return err
		}
	}
	return nil
}

// drop has the links swallow everything that goes one way; undoing it closes them.
func drop(direction string, links ...*toxiproxy.Proxy) func() error {
	return poison(`{"name":"chaos","type":"timeout","stream":"`+direction+`","attributes":{"timeout":0}}`, links...)
}

// slow delays everything that goes upstream.
func slow(delay, jitter time.Duration, links ...*toxiproxy.Proxy) func() error {
	return poison(fmt.Sprintf(`{"name":"chaos","type":"latency","stream":"upstream","attributes":{"latency":%d,"jitter":%d}}`,
		delay.Milliseconds(), jitter.Milliseconds()), links...)
}

// poison adds a toxic to links and returns what removes it.
func poison(toxic string, links ...*toxiproxy.Proxy) func() error {
	var failed error
	for _, p := range links {
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			failed = err
		}
	}
	return func() error {
		for _, p := range links {
			ctx, cancel := context.WithTimeout(context.Background(), chaosPatience)
			if err := p.Toxics.RemoveToxic(ctx, "chaos"); err != nil {
				failed = err
			}
			cancel()
		}
		return failed
	}
}
