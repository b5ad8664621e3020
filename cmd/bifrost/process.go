package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/proxy"
)

// process is one running bifrost: what start made, reload changes and stop ends, in the reverse order.
type process struct {
	log      *slog.Logger
	level    *slog.LevelVar
	registry *prometheus.Registry
	requests *proxy.Metrics // outlive every Proxy, as do
	tunnels  *proxy.Tunnels
	keySets  *proxy.KeySets
	usage    proxy.Usage
	reloads  reloadMetrics
	audit    *auditLog

	listeners listeners
	store     store
	broker    *authflow.Broker
	proxy     *proxy.Proxy // replaced by reload, which runs on one goroutine
	ending    []endingKey  // told of by warnEnding
	config    atomic.Pointer[config.Config]
	ready     atomic.Bool

	sweep   context.CancelFunc // ends the Broker's sweep
	running sync.WaitGroup     // the sweep and the three servers
	failed  chan error         // the first server that fails by itself
}

// start binds the addresses, opens the store and makes the handlers; serve comes next. On an error nothing is left behind.
func start(ctx context.Context, cfg *config.Config, stdout io.Writer, log *slog.Logger, level *slog.LevelVar) (_ *process, err error) {
	p := &process{log: log, level: level, registry: newRegistry(), failed: make(chan error, 3)}
	p.requests = proxy.NewMetrics(p.registry)
	p.tunnels = proxy.NewTunnels(p.registry)
	p.keySets = proxy.NewKeySets(p.registry, log)
	p.reloads = newReloadMetrics(p.registry)
	p.audit = newAuditLog(stdout, p.registry, log)
	p.config.Store(cfg)

	if err := p.audit.follow(cfg.Audit); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if p.listeners, err = bindAll(cfg, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.listeners.close()
		}
	}()
	if p.store, err = openStore(ctx, cfg, p.registry, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.store.Close())
		}
	}()
	return p, p.build(cfg)
}

// build makes the Broker and the handlers.
func (p *process) build(cfg *config.Config) error {
	var err error
	p.broker, err = authflow.New(authflow.Config{
		Store:        p.store,
		Alone:        alone(p.store),
		Integrations: integrations(cfg),
		PublicURL:    cfg.Auth.PublicURL,
		Log:          p.log,
		Metrics:      p.registry,
		PerOrg:       p.perOrg,
		Audit:        p.audit.record,
	})
	if err != nil {
		return err
	}
	h, err := p.handlers(cfg)
	if err != nil {
		return err
	}
	p.install(h)
	return nil
}

// perOrg says whether org-labelled series are published.
func (p *process) perOrg(connections int) bool {
	if setting := p.config.Load().Ops.PerOrgMetrics; setting != nil {
		return *setting
	}
	return connections <= 1000
}

// handlers are what a reload replaces.
type handlers struct {
	proxy     *proxy.Proxy
	auth, ops http.Handler
}

// handlers makes the handlers of all three listeners without installing them: either all are usable or none is installed.
func (p *process) handlers(cfg *config.Config) (handlers, error) {
	traffic := proxyConfig(cfg, p.broker, p.requests, &p.usage, p.log)
	traffic.Tunnels = p.tunnels
	traffic.KeySets = p.keySets
	px, err := proxy.New(traffic)
	if err != nil {
		return handlers{}, err
	}
	screen, err := console.New(consoleConfig(cfg, p.broker, p.store, p.log))
	if err != nil {
		return handlers{}, errors.Join(err, px.Close())
	}
	return handlers{px, authHandler(p.broker.Handler(), screen), opsHandler(p.registry, &p.ready, p.store, cfg.Ops.PProf)}, nil
}

// install lets new requests go to h; those under way end with the handler that they began with.
func (p *process) install(h handlers) {
	p.listeners.proxy.handler.set(h.proxy)
	p.listeners.auth.handler.set(h.auth)
	p.listeners.ops.handler.set(h.ops)
	if p.proxy != nil {
		_ = p.proxy.Close() // idle connections only
	}
	p.proxy = h.proxy
	p.tunnels.Follow(p.proxy)
}

// authHandler parts the consent flow from the screen and the API, which answers 404 to what is neither.
func authHandler(flow, screen http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/oauth/") {
			flow.ServeHTTP(w, r)
			return
		}
		screen.ServeHTTP(w, r)
	})
}

// serve starts the sweep and the three servers, which stop waits for.
func (p *process) serve() {
	ctx, cancel := context.WithCancel(context.Background()) // the sweep outlives the signal that ends the process
	p.sweep = cancel
	p.running.Go(func() { p.broker.Run(ctx) })
	p.running.Go(func() { p.warnMissingKeys(ctx) })
	for _, l := range p.listeners.all() {
		p.running.Go(func() {
			if err := l.serve(); err != nil {
				p.failed <- err
			}
		})
	}
	p.ready.Store(true)
	p.audit.audited(authflow.ActionStart, authflow.OK)
	p.announce()
}

// announce writes the first line of the log, and warns of what an operator may not have meant.
func (p *process) announce() {
	cfg := p.config.Load()
	p.log.Info("bifrost is serving",
		"version", buildVersion(),
		"proxy", p.listeners.proxy.url(),
		"auth", p.listeners.auth.url(),
		"ops", p.listeners.ops.url(),
		"store", storeKind(cfg),
		"integrations", len(cfg.Integrations),
		"callers", len(cfg.Callers))
	if !guarded(cfg) {
		p.log.Warn("no callers are configured: whoever reaches the proxy listener may use every connection")
	}
	p.warnUnbound(cfg)
	p.warnEnding(cfg)
	if openToAll(cfg.Auth) {
		p.log.Warn("no operators are configured: the screen and the API are open to this machine")
	}
}
