package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// chaosNode is one replica: a place where processes run one after another, each with a log of its own.
type chaosNode struct {
	chaos            *chaos
	name             string
	config           string
	env              []string
	proxy, auth, ops string // base URLs, the same for each process
	links            *chaosLinks
	client           *http.Client

	mu         sync.Mutex // guards what follows
	lives      []*chaosLife
	goroutines int // the most that were seen
	memory     int // likewise, in KiB
}

// chaosLife is one process.
type chaosLife struct {
	cmd    *exec.Cmd
	stderr output
	exited chan struct{} // closed once cmd.Wait has returned

	began, ready time.Time
	ended        time.Time // by a signal of ours
	how          string    // it ended; empty: it runs, or did not start
}

// launch starts a process and waits until it is ready; one that does not start, because Redis is away, is started again, as
// every supervisor does.
func (n *chaosNode) launch() error {
	for end := time.Now().Add(chaosPatience); time.Now().Before(end); {
		life, err := n.begin()
		if err != nil {
			return err
		}
		ready := within1(time.Until(end), func() bool { return n.isReady() || life.hasEnded() })
		if ready && !life.hasEnded() {
			n.mu.Lock()
			life.ready = time.Now()
			n.mu.Unlock()
			return nil
		}
		<-time.After(200 * time.Millisecond)
	}
	return fmt.Errorf("%s does not start", n.name)
}

func (n *chaosNode) begin() (*chaosLife, error) {
	binary, err := built.plain()
	if err != nil {
		return nil, err
	}
	life := &chaosLife{exited: make(chan struct{}), began: time.Now()}
	life.cmd = exec.Command(binary, "serve", "-config", n.config)
	life.cmd.Stderr, life.cmd.Env = &life.stderr, append(os.Environ(), n.env...)
	if err := life.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		_ = life.cmd.Wait() // ProcessState tells
		close(life.exited)
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lives = append(n.lives, life)
	return life, nil
}

func (l *chaosLife) hasEnded() bool {
	select {
	case <-l.exited:
		return true
	default:
		return false
	}
}

func (n *chaosNode) isReady() bool {
	resp, err := n.client.Get(n.ops + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // nothing is read
	return resp.StatusCode == http.StatusOK
}

// life returns the present process.
func (n *chaosNode) life() *chaosLife {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lives[len(n.lives)-1]
}

func (n *chaosNode) signal(sig syscall.Signal) { _ = n.life().cmd.Process.Signal(sig) } // it may have ended

// end remembers how the process is brought to its end.
func (n *chaosNode) end(how string) *chaosLife {
	life := n.life()
	n.mu.Lock()
	defer n.mu.Unlock()
	life.ended, life.how = time.Now(), how
	return life
}

// kill ends the process with SIGKILL.
func (n *chaosNode) kill() {
	life := n.end("killed")
	n.signal(syscall.SIGKILL)
	<-life.exited
}

// terminate ends the process with SIGTERM: it must end by itself, well.
func (n *chaosNode) terminate() {
	life := n.end("terminated")
	n.signal(syscall.SIGTERM)
	if !within1(chaosPatience, life.hasEnded) {
		n.chaos.t.Errorf("%s does not end after SIGTERM", n.name)
		n.signal(syscall.SIGKILL)
		<-life.exited
		return
	}
	if code := life.cmd.ProcessState.ExitCode(); code != 0 {
		n.chaos.t.Errorf("%s ended with %d after SIGTERM", n.name, code)
	}
}

// watch looks now and then at what the processes use.
func (n *chaosNode) watch(ctx context.Context) {
	for wait(ctx, 500*time.Millisecond) {
		memory := n.life().peakMemory()
		goroutines := n.countGoroutines()
		n.mu.Lock()
		n.memory, n.goroutines = max(n.memory, memory), max(n.goroutines, goroutines)
		n.mu.Unlock()
	}
}

func (n *chaosNode) countGoroutines() int {
	resp, err := n.client.Get(n.ops + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	for line := range lines(resp.Body) {
		if value, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			count, _ := strconv.Atoi(value)
			return count
		}
	}
	return 0
}

// peakMemory returns the most resident memory that the process has had, in KiB. What the system tells of it at its end counts
// the test's own memory, from which it was forked.
func (l *chaosLife) peakMemory() int {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer file.Close()
	for line := range lines(file) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(value, "kB")))
			return kib
		}
	}
	return 0
}
