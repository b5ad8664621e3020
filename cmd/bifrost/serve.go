package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// runServe runs the proxy until a signal ends it. Once there is a log, what goes wrong is told there.
func runServe(ctx context.Context, args []string, std stdio) error {
	fs := newFlags("serve")
	path := fs.String(configFlag, configDefault, "configuration `file`")
	if _, err := parse(fs, args, std); err != nil {
		return err
	}
	cfg, err := load(*path, std.env)
	if err != nil {
		fmt.Fprintln(std.err, err)
		return errReported
	}
	lines := newLogWriter(std.err)
	defer lines.flush(flushPatience)
	log, level := newLog(lines, cfg.Log)
	takeOverLogs(log)

	p, err := start(ctx, cfg, std.out, log, level)
	if err != nil {
		log.Error("bifrost does not start", "error", err)
		return errReported
	}
	// Until here a signal ends the process at once: there is nothing to lose yet.
	stopping := make(chan os.Signal, 2) // the second signal is not to be lost
	signal.Notify(stopping, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(stopping)
	p.serve()
	if err := p.run(ctx, *path, std.env, stopping); err != nil {
		if errors.Is(err, errCut) {
			lines.hurry()
		}
		log.Error("bifrost ends badly", "error", err)
		return errReported
	}
	log.Info("bifrost has stopped")
	return nil
}

// errCut says that a second signal ended the process before it was ready to end.
var errCut = errors.New("a second signal: ending at once")

// run reloads on demand until a signal comes or a server fails, and then drains.
func (p *process) run(ctx context.Context, path string, env func(string) (string, bool), stopping <-chan os.Signal) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	cfg := p.config.Load()
	watch, err := newWatch(p.writes, p.log)
	if err != nil {
		return errors.Join(err, p.drain(ctx, stopping))
	}
	defer watch.close()
	watch.follow(cfg.Files())
	r := &reloader{process: p, path: path, env: env, watch: watch, loaded: cfg}
	r.look(false) // the file may have changed during the start
	for {
		select {
		case <-hangup:
			p.audit.reopen()
			r.look(true)
		case <-watch.changed:
			r.look(false)
		case err := <-p.failed:
			return errors.Join(err, p.drain(ctx, stopping))
		case <-stopping:
			return p.drain(ctx, stopping)
		}
	}
}

// writes tells whether this process itself writes to files of that name all the time.
func (p *process) writes(name string) bool {
	cfg := p.config.Load()
	return cfg.Store.File != "" && strings.HasPrefix(name, filepath.Base(cfg.Store.File)) ||
		cfg.Audit.File != "" && name == filepath.Base(cfg.Audit.File)
}

// drain stops, unless another signal asks to end at once.
func (p *process) drain(ctx context.Context, stopping <-chan os.Signal) error {
	done := make(chan error, 1)
	go func() { done <- p.stop(ctx) }() // ends with stop, or with the process after a second signal
	select {
	case err := <-done:
		return err
	case <-stopping:
		return errCut
	}
}
