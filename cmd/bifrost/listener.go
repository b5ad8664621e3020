package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/config"
)

// Limits of every listener. There is no ReadTimeout or WriteTimeout on the proxy: they would cut honest slow transfers.
const (
	headerTimeout  = 10 * time.Second // a client that drips its headers
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
	maxStreams     = 100              // per HTTP/2 connection
	bodyTimeout    = 30 * time.Second // auth and ops: the bodies are small forms
	replyTimeout   = 2 * time.Minute  // auth: longer than an exchange and a save together
)

// listener is one of the three servers. It is bound when it exists, and serves when serve is called.
type listener struct {
	name    string
	scheme  string // http or https
	socket  net.Listener
	steady  *steady // underneath
	server  *http.Server
	handler *swap
}

// swap is a handler that a reload replaces. A request ends with the handler that it began with.
type swap struct{ current atomic.Pointer[http.Handler] }

func (s *swap) set(h http.Handler) { s.current.Store(&h) }

func (s *swap) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.current.Load()).ServeHTTP(w, r) }

// bind takes the address and reads the certificate. The handler must be set before serve.
func bind(name, addr string, files *config.TLS, log *slog.Logger) (*listener, error) {
	l := &listener{name: name, scheme: "http", handler: new(swap)}
	l.server = &http.Server{
		Handler:           l.handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          serverLog(log, name),
	}
	if files != nil {
		cert, err := newCertificate(*files, log.With("listener", name))
		if err != nil {
			return nil, fmt.Errorf("%s.tls: %w", name, err)
		}
		l.scheme, l.server.TLSConfig = "https", cert.server()
	}
	socket, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s.listen: %w", name, err)
	}
	l.steady = &steady{Listener: socket}
	l.socket = l.steady
	if files != nil {
		l.socket = tls.NewListener(l.steady, l.server.TLSConfig)
	}
	return l, nil
}

// url returns the address as it was bound: a port 0 has become a real one.
func (l *listener) url() string { return l.scheme + "://" + l.socket.Addr().String() }

// serve answers until stop. It returns nil then, and an error if the socket fails.
func (l *listener) serve() error {
	if err := l.server.Serve(l.socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the %s listener failed: %w", l.name, err)
	}
	return nil
}

// stop lets requests finish for at most patience and cuts the rest, which it reports.
func (l *listener) stop(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if err != nil {
		_ = l.server.Close() // the cut is what we report
	}
	return err
}

// listeners are the three servers.
type listeners struct{ proxy, auth, ops *listener }

// bindAll takes all three addresses before any of them serves, or none.
func bindAll(cfg *config.Config, log *slog.Logger) (l listeners, err error) {
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.proxy, err = bind("proxy", cfg.Proxy.Listen, cfg.Proxy.TLS, log); err != nil {
		return l, err
	}
	l.proxy.steady.limit.Store(int64(cfg.Proxy.WriteIdle))
	l.proxy.server.DisableGeneralOptionsHandler = true // OPTIONS * is the proxy's to refuse
	if l.auth, err = bind("auth", cfg.Auth.Listen, cfg.Auth.TLS, log); err != nil {
		return l, err
	}
	l.auth.server.ReadTimeout, l.auth.server.WriteTimeout = bodyTimeout, replyTimeout
	if l.ops, err = bind("ops", cfg.Ops.Listen, cfg.Ops.TLS, log); err != nil {
		return l, err
	}
	l.ops.server.ReadTimeout = bodyTimeout
	return l, nil
}

func (l listeners) all() []*listener {
	var bound []*listener
	for _, one := range []*listener{l.proxy, l.auth, l.ops} {
		if one != nil {
			bound = append(bound, one)
		}
	}
	return bound
}

// close gives the addresses back at once.
func (l listeners) close() {
	for _, one := range l.all() {
		_ = one.server.Close()
		_ = one.socket.Close() // Close knows only sockets that were served
	}
}
