package storetest

import (
	"bytes"
	"io"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// RedisServer is a real redis-server of a test's own on loopback, with an append-only file in a folder that goes with the
// test. Its methods may be called in any order.
type RedisServer struct {
	Addr string // host:port
	URL  string // redis://host:port

	t    testing.TB
	args []string

	mu     sync.Mutex // guards all below
	cmd    *exec.Cmd  // nil while it is down
	output *bytes.Buffer
}

// StartRedis starts a server and waits until it answers. It is killed with the test. Further arguments are passed on.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is not installed: run `make test`, which installs what the tests need")
	}
	s := newRedisServer(t, args...)
	s.start()
	return s
}

func newRedisServer(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	port := freePort(t)
	s := &RedisServer{t: t, Addr: net.JoinHostPort("127.0.0.1", port), output: &bytes.Buffer{}}
	s.URL = "redis://" + s.Addr
	s.args = append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "yes",
		"--daemonize", "no"}, args...)
	t.Cleanup(s.Kill)
	return s
}

// Restart starts the server again after Stop or Kill, on the same port and with the data that it had stored.
func (s *RedisServer) Restart() {
	s.t.Helper()
	s.start()
}

// Stop ends the server in good order (SIGTERM) and waits until it is gone.
func (s *RedisServer) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once (SIGKILL) and waits until it is gone.
func (s *RedisServer) Kill() { s.end(syscall.SIGKILL) }

// Pause freezes the server (SIGSTOP): it accepts connections and never answers.
func (s *RedisServer) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on (SIGCONT).
func (s *RedisServer) Resume() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Nil(s.t, s.cmd, "the server is running")
	s.output.Reset()
	cmd := exec.Command("redis-server", s.args...)
	cmd.Stdout, cmd.Stderr = s.output, s.output
	require.NoError(s.t, cmd.Start())
	s.cmd = cmd
	if !assert.Eventually(s.t, func() bool { return answersPing(s.Addr) }, 15*time.Second, 3*time.Millisecond) {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()
		s.cmd = nil
		s.t.Fatalf("redis-server does not answer:\n%s", s.output)
	}
}

func (s *RedisServer) end(with syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(with)            // it may have ended by itself
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // a paused process would not see SIGTERM
	_ = s.cmd.Wait()                          // its exit status tells nothing here
	s.cmd = nil
}

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotNil(s.t, s.cmd, "the server is down")
	require.NoError(s.t, s.cmd.Process.Signal(sig))
}

// answersPing says whether a server has loaded its data and answers.
func answersPing(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second)) // a conn that refuses fails below
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	reply := make([]byte, 7)
	_, err = io.ReadFull(conn, reply)
	return err == nil && string(reply) == "+PONG\r\n"
}
