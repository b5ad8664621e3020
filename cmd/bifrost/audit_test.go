package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/config"
)

// auditTo returns an audit log to a file of its own, the file, and the log of its troubles.
func auditTo(t *testing.T) (a *auditLog, path string, log *output) {
	t.Helper()
	path, log = filepath.Join(t.TempDir(), "audit.log"), new(output)
	a = newAuditLog(io.Discard, nil, slog.New(slog.NewJSONHandler(log, nil)))
	require.NoError(t, a.follow(config.Audit{File: path}))
	return a, path, log
}

// auditLines returns the actors of the events in a file, every line of which must be whole.
func auditLines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var actors []string
	for line := range strings.Lines(string(text)) {
		var e authflow.Event
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		require.True(t, strings.HasSuffix(line, "}\n"), line)
		actors = append(actors, e.Actor)
	}
	return actors
}

func by(actor string) authflow.Event {
	return authflow.Event{Action: authflow.ActionSignIn, Actor: actor}
}

func TestAuditFileIsForItsOwnerAlone(t *testing.T) {
	_, path, _ := auditTo(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestAuditLineIsWrittenWhenRecordReturns(t *testing.T) {
	a, path, _ := auditTo(t)
	a.record(by("one"))
	require.Equal(t, []string{"one"}, auditLines(t, path))
}

func TestAuditFileThatWasRotatedIsOpenedAnew(t *testing.T) {
	a, path, _ := auditTo(t)
	a.record(by("one"))
	require.NoError(t, os.Rename(path, path+".1"))
	a.record(by("two"))
	require.NoError(t, os.Remove(path))
	a.record(by("three"))
	require.NoError(t, os.Truncate(path, 0)) // as copytruncate does
	a.record(by("four"))
	require.Equal(t, []string{"one"}, auditLines(t, path+".1"))
	require.Equal(t, []string{"four"}, auditLines(t, path))
}

func TestAuditLineAfterATornOneBeginsOnANewLine(t *testing.T) {
	a, path, _ := auditTo(t)
	for range 2 { // of an earlier process, and of another one while this runs
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		_, err = file.WriteString(`{"time":"2026-`)
		require.NoError(t, errors.Join(err, file.Close()))
		a.record(by("whole"))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Len(t, lines, 4)
	for _, line := range []string{lines[1], lines[3]} {
		require.NoError(t, json.Unmarshal([]byte(line), new(authflow.Event)), line)
	}
}

// TestAuditTroubleIsToldOnceAndFailsNothing: the folder is away for a while.
func TestAuditTroubleIsToldOnceAndFailsNothing(t *testing.T) {
	a, path, log := auditTo(t)
	dir := filepath.Dir(path)
	require.NoError(t, os.Rename(dir, dir+".away"))
	for range 3 {
		a.record(by("lost"))
	}
	require.EqualValues(t, 3, testutil.ToFloat64(a.failures))
	require.Equal(t, 1, strings.Count(log.String(), "the audit log cannot be written"))
	require.NoError(t, os.Rename(dir+".away", dir))
	a.record(by("kept"))
	a.record(by("kept"))
	require.Equal(t, 1, strings.Count(log.String(), "the audit log is written again"))
	require.Equal(t, []string{"kept", "kept"}, auditLines(t, path))
	require.EqualValues(t, 3, testutil.ToFloat64(a.failures))
}

// TestAuditLinesOfTwoProcessesStayWhole has this test's binary write to the same file.
func TestAuditLinesOfTwoProcessesStayWhole(t *testing.T) {
	const each, writers = 200, 4
	write := func(a *auditLog) {
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for n := range each {
					e := by(strings.Repeat(strconv.Itoa(i), 200))
					e.Detail = strings.Repeat("x", n)
					a.record(e)
				}
			})
		}
		wg.Wait()
	}
	if path := os.Getenv("AUDIT_WRITER"); path != "" {
		a := newAuditLog(io.Discard, nil, slog.New(slog.DiscardHandler))
		require.NoError(t, a.follow(config.Audit{File: path}))
		write(a)
		return
	}
	a, path, _ := auditTo(t)
	other := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	other.Env = append(os.Environ(), "AUDIT_WRITER="+path)
	require.NoError(t, other.Start())
	write(a)
	require.NoError(t, other.Wait())
	require.Len(t, auditLines(t, path), 2*each*writers)
}

// stuck is a stdout that nobody reads until it is freed.
type stuck struct {
	output
	free chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.output.Write(p)
}

func TestAuditStdoutThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuck{free: make(chan struct{})}
		a := newAuditLog(out, nil, slog.New(slog.DiscardHandler))
		require.NoError(t, a.follow(config.Audit{Stdout: true}))
		began := time.Now()
		a.record(by("late"))
		a.record(by("lost"))
		require.Equal(t, 2*auditPatience, time.Since(began))
		require.NoError(t, a.follow(config.Audit{}), "a reload leaves such a stdout")
		close(out.free)
		synctest.Wait()
		require.Contains(t, out.String(), `"late"`)
		require.NotContains(t, out.String(), `"lost"`)
	})
}

func TestAuditLogThatMovesEndsWithTheReload(t *testing.T) {
	a, path, _ := auditTo(t)
	a.record(by("before"))
	move := by("move")
	require.Error(t, a.follow(config.Audit{File: filepath.Join(path, "audit.log")}), "a folder that is not there")
	require.ErrorContains(t, a.follow(config.Audit{File: os.DevNull}), "is not a regular file")
	there, err := a.prepare(config.Audit{File: path + ".new"})
	require.NoError(t, err)
	a.record(by("still"))
	there(&move)
	a.record(by("after"))
	require.Equal(t, []string{"before", "still", "move"}, auditLines(t, path))
	require.Equal(t, []string{"after"}, auditLines(t, path+".new"))
}

// A reload that fails later on is tried again every half minute. Each try used to leave the new file open.
func TestAPlaceThatIsNotMovedToIsNotKeptOpen(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("this system does not tell which files are open")
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	a := newAuditLog(io.Discard, nil, slog.New(slog.DiscardHandler))
	move, err := a.prepare(config.Audit{File: path})
	require.NoError(t, err)
	require.FileExists(t, path)
	open, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, fd := range open {
		file, _ := os.Readlink(fd) // it may be closed by now
		require.NotEqual(t, path, file)
	}
	move(nil)
	a.audited(authflow.ActionStart, authflow.OK)
	lines, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Contains(t, string(lines), `"action":"start"`)
	a.reopen()
}
