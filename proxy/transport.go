package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"time"
)

const (
	idleConnections   = 512 // per upstream host: fewer than the concurrency would mean new connections all the time
	idleTimeout       = 90 * time.Second
	maxResponseHeader = 64 << 10
	continueTimeout   = time.Second
)

// newTransport returns the connections of one route. No proxy is taken from the environment, nothing is decompressed, and
// redirects are for the caller to follow.
func newTransport(cfg Route) *http.Transport {
	d := dialer{timeout: cfg.DialTimeout, allowPrivate: cfg.AllowPrivate, resolver: cfg.resolver, tls: &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    cfg.RootCAs,
		NextProtos: []string{"h2", "http/1.1"},
	}}
	if d.timeout == 0 {
		d.timeout = 10 * time.Second
	}
	headerTimeout := cfg.ResponseHeaderTimeout
	if headerTimeout == 0 {
		headerTimeout = 60 * time.Second
	}
	return &http.Transport{
		DialContext:            d.dial,
		DialTLSContext:         d.secure,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idleConnections,
		IdleConnTimeout:        idleTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
}

// dialer opens upstream connections. It does TLS itself, so that a slow handshake is known from a slow answer.
type dialer struct {
	timeout      time.Duration // TCP and TLS together
	allowPrivate []netip.Prefix
	resolver     *net.Resolver // nil: the system's
	tls          *tls.Config
}

// dialError says that there never was a connection.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

func (d dialer) secure(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &dialError{err}
	}
	conn, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	cfg := d.tls.Clone()
	cfg.ServerName = host
	if ctx.Value(http1Only{}) != nil {
		cfg.NextProtos = []string{"http/1.1"}
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error says more
		return nil, &dialError{err}
	}
	return secured, nil
}
