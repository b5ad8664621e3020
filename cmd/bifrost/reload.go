package main

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// reloader brings the configuration file into force while bifrost runs. One goroutine uses it.
type reloader struct {
	process *process
	path    string
	env     func(string) (string, bool)
	watch   *watch

	loaded  *config.Config // in force, but for what only a restart changes
	trouble error          // of the last look; nil: loaded is in force
}

// look reads the file. Where nothing is new since the last look it does nothing, unless it is asked by a signal.
func (r *reloader) look(asked bool) {
	cfg, err := load(r.path, r.env)
	if err == nil {
		err = r.apply(cfg, asked)
	}
	if err == nil {
		r.trouble = nil
		return
	}
	r.process.reloads.failed()
	if asked || !sameTrouble(r.trouble, err) {
		report(r.process.log, err)
		r.process.audit.audited(authflow.ActionReloadFailed, "refused")
	}
	r.trouble = err
}

// sameTrouble says whether two looks met the same, the first of them perhaps none. What a key still seals changes all the time.
func sameTrouble(before, now error) bool {
	if before == nil {
		return false
	}
	former, was := errors.AsType[*tokenstore.KeyInUseError](before)
	present, is := errors.AsType[*tokenstore.KeyInUseError](now)
	if was && is {
		return former.ID == present.ID
	}
	return before.Error() == now.Error()
}

// apply brings cfg into force, whole or not at all.
func (r *reloader) apply(cfg *config.Config, asked bool) error {
	r.watch.follow(cfg.Files())
	p := r.process
	if !asked && r.trouble == nil && reflect.DeepEqual(cfg, r.loaded) {
		p.warnEnding(p.config.Load()) // time goes by
		return nil
	}
	pinned, restart := pin(cfg, p.config.Load())
	if err := exposed(pinned); err != nil {
		return err
	}
	h, err := p.handlers(pinned)
	if err != nil {
		return err
	}
	moveAudit, err := p.audit.prepare(pinned.Audit)
	if err != nil {
		return errors.Join(fmt.Errorf("audit: %w", err), h.proxy.Close())
	}
	setIntegrations, err := p.broker.PrepareIntegrations(integrations(pinned))
	if err != nil {
		return errors.Join(err, h.proxy.Close())
	}
	if err := p.setKeys(pinned); err != nil { // the last that can fail
		return errors.Join(err, h.proxy.Close())
	}
	setIntegrations()
	p.config.Store(pinned)
	p.level.Set(logLevel(pinned.Log))
	p.listeners.proxy.steady.limit.Store(int64(pinned.Proxy.WriteIdle))
	p.install(h)
	p.reloads.succeeded()
	r.loaded = cfg
	done := ours(authflow.ActionReload, authflow.OK)
	moveAudit(&done)
	p.audit.record(done)
	p.log.Info("the configuration was reloaded", "integrations", len(cfg.Integrations), "callers", len(cfg.Callers))
	p.warnUnbound(pinned)
	p.warnEnding(pinned)
	if len(restart) > 0 {
		p.log.Warn("some changes need a restart; until then the old values stay", "settings", restart)
	}
	return nil
}

// pin returns cfg with the running values of what only a restart changes, and the names of those that differ.
func pin(cfg, running *config.Config) (*config.Config, []string) {
	pinned := *cfg
	var differ []string
	keep := func(name string, same bool) {
		if !same {
			differ = append(differ, name)
		}
	}
	keep("proxy.listen", cfg.Proxy.Listen == running.Proxy.Listen)
	keep("proxy.tls", reflect.DeepEqual(cfg.Proxy.TLS, running.Proxy.TLS))
	keep("auth.listen", cfg.Auth.Listen == running.Auth.Listen)
	keep("auth.tls", reflect.DeepEqual(cfg.Auth.TLS, running.Auth.TLS))
	keep("auth.public_url", cfg.Auth.PublicURL == running.Auth.PublicURL)
	keep("ops.listen", cfg.Ops.Listen == running.Ops.Listen)
	keep("ops.tls", reflect.DeepEqual(cfg.Ops.TLS, running.Ops.TLS))
	keep("store", cfg.Store == running.Store)
	if cfg.Store != running.Store { // the keys are the store's
		keep("encryption_keys", reflect.DeepEqual(cfg.EncryptionKeys, running.EncryptionKeys))
		pinned.EncryptionKeys = running.EncryptionKeys
	}
	keep("log.format", cfg.Log.Format == running.Log.Format)

	pinned.Proxy.Listen, pinned.Proxy.TLS = running.Proxy.Listen, running.Proxy.TLS
	pinned.Auth.Listen, pinned.Auth.TLS = running.Auth.Listen, running.Auth.TLS
	pinned.Auth.PublicURL = running.Auth.PublicURL
	pinned.Ops.Listen, pinned.Ops.TLS = running.Ops.Listen, running.Ops.TLS
	pinned.Store = running.Store
	pinned.Log.Format = running.Log.Format
	return &pinned, differ
}

// exposed refuses what the file's own addresses would allow but the addresses in force, which only a restart changes, do not:
// a listener that others reach, without a credential to ask for.
func exposed(cfg *config.Config) error {
	if !guarded(cfg) && !cfg.Proxy.TrustNetwork && !loopback(cfg.Proxy.Listen) {
		return errors.New("proxy.listen: the address in force is not loopback: callers or caller_jwt, or proxy.trust_network, must stay until a restart")
	}
	if openToAll(cfg.Auth) && !loopback(cfg.Auth.Listen) {
		return errors.New("auth.listen: the address in force is not loopback: auth.operators, or auth.oidc, must stay until a restart")
	}
	return nil
}

// openToAll says that nobody has to sign in.
func openToAll(auth config.Auth) bool { return len(auth.Operators) == 0 && auth.OIDC == nil }

// report logs why a configuration is not brought into force, each problem by itself.
func report(log *slog.Logger, err error) {
	const message = "the configuration cannot be used; the running one stays"
	problems, ok := errors.AsType[config.Problems](err)
	if !ok {
		log.Error(message, "problem", err.Error())
		return
	}
	for _, problem := range problems {
		log.Error(message, "problem", problem.String())
	}
}

// reloadMetrics tell how the last reload went. They are set from the start.
type reloadMetrics struct{ successful, succeededAt prometheus.Gauge }

func newReloadMetrics(reg prometheus.Registerer) reloadMetrics {
	auto := promauto.With(reg)
	m := reloadMetrics{
		successful: auto.NewGauge(prometheus.GaugeOpts{
			Name: "bifrost_config_last_reload_successful",
			Help: "Whether the configuration file, when last looked at, could be brought into force.",
		}),
		succeededAt: auto.NewGauge(prometheus.GaugeOpts{
			Name: "bifrost_config_last_reload_success_timestamp_seconds",
			Help: "When a configuration was last brought into force.",
		}),
	}
	m.succeeded()
	return m
}

func (m reloadMetrics) succeeded() {
	m.successful.Set(1)
	m.succeededAt.SetToCurrentTime()
}

func (m reloadMetrics) failed() { m.successful.Set(0) }
