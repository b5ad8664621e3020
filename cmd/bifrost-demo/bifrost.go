package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	startTimeout = 15 * time.Second
	stopTimeout  = 15 * time.Second
	// interruptGrace is for Ctrl-C, which a terminal sends to bifrost as well: a second signal would cut its ending short.
	interruptGrace = 3 * time.Second
)

// child is the running bifrost.
type child struct {
	cmd         *exec.Cmd
	log         string        // file that takes its standard error
	done        chan struct{} // closed when it has ended
	err         error         // how; valid after done
	interrupted context.Context
}

// buildBifrost builds the program from the source that this demo was built from.
func buildBifrost(ctx context.Context, binary string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/bifrost-proxy/bifrost/cmd/bifrost")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build ./cmd/bifrost (run the demo inside its repository): %w\n%s", err, output)
	}
	return nil
}

// startBifrost runs bifrost and waits until it is ready. ctx ends with the demo.
func startBifrost(ctx context.Context, binary, config, ready string, env ...string) (*child, error) {
	c := &child{log: config + ".log", done: make(chan struct{}), interrupted: ctx}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, err
	}
	c.cmd = exec.Command(binary, "serve", "-config", config) // outlives ctx: stop ends it in order
	c.cmd.Stderr = log
	c.cmd.Env = append(os.Environ(), env...)
	if err := errors.Join(c.cmd.Start(), log.Close()); err != nil {
		return nil, err
	}
	go func() { // ends with the child, which stop ends
		c.err = c.cmd.Wait()
		close(c.done)
	}()

	patience, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	isReady := func() bool {
		status, _, _, err := get(patience, http.DefaultClient, ready, nil)
		return err == nil && status == http.StatusOK
	}
	for !isReady() {
		select {
		case <-c.done:
			return nil, fmt.Errorf("bifrost does not start: %w\n%s", c.err, c.lastWords())
		case <-patience.Done():
			return nil, errors.Join(fmt.Errorf("bifrost is not ready: %w\n%s", patience.Err(), c.lastWords()), c.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return c, nil
}

// stop asks bifrost to end and waits for it.
func (c *child) stop() error {
	if c.interrupted.Err() != nil {
		select {
		case <-c.done:
			return c.err
		case <-time.After(interruptGrace):
		}
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-c.done:
		if c.err != nil {
			return fmt.Errorf("bifrost ended badly: %w\n%s", c.err, c.lastWords())
		}
		return nil
	case <-time.After(stopTimeout):
		_ = c.cmd.Process.Kill() // as above
		<-c.done
		return fmt.Errorf("bifrost had to be killed\n%s", c.lastWords())
	}
}

// lastWords returns the end of bifrost's log.
func (c *child) lastWords() string {
	const lines = 12
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	all := bytes.SplitAfter(text, []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines-1):], nil))
}
