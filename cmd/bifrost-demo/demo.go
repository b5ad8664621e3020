package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const (
	integration = "Microsoft_Graph"
	route       = "/graph"
	secretName  = "DEMO_CLIENT_SECRET" // the environment variable that the configuration names
)

// demo is everything that runs: what start made and stop ends.
type demo struct {
	proxy, auth, ops, api string // base URLs without trailing slash
	life                  time.Duration
	dir                   string // of the configuration, the store and the log; removed by stop

	provider *authflowtest.Provider
	servers  []*http.Server
	bifrost  *child
}

// start serves the provider and the API, and runs bifrost in front of them.
func start(ctx context.Context, port int, life time.Duration) (_ *demo, err error) {
	d := &demo{life: life}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	if d.dir, err = os.MkdirTemp("", "bifrost-demo-"); err != nil {
		return nil, err
	}
	binary := filepath.Join(d.dir, "bifrost")
	if err := buildBifrost(ctx, binary); err != nil {
		return nil, err
	}

	sockets, err := listenAll(port, 5)
	if err != nil {
		return nil, err
	}
	url := func(i int) string { return "http://" + sockets[i].Addr().String() }
	d.proxy, d.auth, d.ops, d.api = url(0), url(1), url(2), url(4)
	d.provider = newProvider(url(3), life)
	d.provider.Register(authflow.RedirectURI(d.auth, integration))
	d.serve(sockets[3], providerHandler(d.provider))
	d.serve(sockets[4], usersHandler(d.api, d.provider.Authenticate))

	file, err := d.writeConfig()
	if err != nil {
		return nil, errors.Join(err, closeAll(sockets[:3]))
	}
	if err := closeAll(sockets[:3]); err != nil { // bifrost binds them itself, a moment later
		return nil, err
	}
	d.bifrost, err = startBifrost(ctx, binary, file, d.ops+"/readyz", secretName+"="+d.provider.ClientSecret())
	return d, err
}

// listenAll binds count loopback ports from first on, or any free ones if first is 0.
func listenAll(first, count int) ([]net.Listener, error) {
	var sockets []net.Listener
	for i := range count {
		port := 0
		if first != 0 {
			port = first + i
		}
		socket, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w (-port N uses other ports, -port 0 any free ones)", err), closeAll(sockets))
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

func closeAll(sockets []net.Listener) error {
	var failures []error
	for _, socket := range sockets {
		failures = append(failures, socket.Close())
	}
	return errors.Join(failures...)
}

func (d *demo) serve(socket net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	d.servers = append(d.servers, server)
	go func() { _ = server.Serve(socket) }() // ends with Close in stop
}

// wait returns when ctx ends, or with an error when bifrost does.
func (d *demo) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.bifrost.done:
		return fmt.Errorf("bifrost has ended\n%s", d.bifrost.lastWords())
	}
}

// stop ends bifrost first, while the provider still answers it, and leaves nothing behind.
func (d *demo) stop() error {
	var failures []error
	if d.bifrost != nil {
		failures = append(failures, d.bifrost.stop())
	}
	if d.provider != nil {
		d.provider.Close()
	}
	for _, server := range d.servers {
		failures = append(failures, server.Close())
	}
	return errors.Join(append(failures, os.RemoveAll(d.dir))...)
}
