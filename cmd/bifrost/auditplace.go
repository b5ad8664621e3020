package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/bifrost-proxy/bifrost/config"
)

// auditPlace is a file, or stdout, to which whole lines are appended. Several processes may append to one file.
type auditPlace struct {
	to     config.Audit
	stdout io.Writer

	turn chan struct{} // full while somebody uses what follows
	file *os.File      // at to.File; nil: to be opened
	torn bool          // of stdout: its last line has no end
}

func newAuditPlace(to config.Audit, stdout io.Writer) *auditPlace {
	return &auditPlace{to: to, stdout: stdout, turn: make(chan struct{}, 1)}
}

// is tells whether the place, which may be nil, is the configured one.
func (p *auditPlace) is(to config.Audit) bool {
	if p == nil {
		return to == config.Audit{}
	}
	return p.to == to
}

// append writes a line, and gives up after a while: then it may still be written.
func (p *auditPlace) append(line []byte) error {
	if !p.take() {
		return errAuditSlow
	}
	done := make(chan error, 1)
	go func() { // ends with the write; while it lasts no other begins
		defer p.yield()
		done <- p.write(line)
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(auditPatience):
		return errAuditSlow
	}
}

// take waits for the turn, and is false if it does not come.
func (p *auditPlace) take() bool {
	select {
	case p.turn <- struct{}{}:
		return true
	case <-time.After(auditPatience):
		return false
	}
}

func (p *auditPlace) yield() { <-p.turn }

// write begins on a new line where the last one has no end: a process was killed in the midst of it, or the disk was full.
func (p *auditPlace) write(line []byte) error {
	if p.to.Stdout {
		n, err := p.stdout.Write(onNewLine(line, p.torn))
		p.torn = err != nil && (n > 0 || p.torn)
		return err
	}
	if err := p.reach(); err != nil {
		return err
	}
	_, err := p.file.Write(onNewLine(line, unended(p.file))) // in one call: lines of other processes come before or after it
	return err
}

func onNewLine(line []byte, torn bool) []byte {
	if torn {
		return append([]byte{'\n'}, line...)
	}
	return line
}

// reach opens the file, anew if the one that is open has been renamed or removed.
func (p *auditPlace) reach() error {
	if p.to.Stdout || p.current() {
		return nil
	}
	p.close()
	file, err := openAuditFile(p.to.File)
	if err == nil {
		p.file = file
	}
	return err
}

// current tells whether the open file is the one at the path. Where that cannot be found out, it is.
func (p *auditPlace) current() bool {
	if p.file == nil {
		return false
	}
	mine, err := p.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(p.to.File)
	return err == nil && os.SameFile(there, mine) || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// letGo closes the file, which the next line opens. A write that hangs has it for longer.
func (p *auditPlace) letGo() {
	if p == nil || !p.take() {
		return
	}
	defer p.yield()
	p.close()
}

func (p *auditPlace) close() {
	if p.file != nil {
		_ = p.file.Close() // its lines are written
	}
	p.file = nil
}

// openAuditFile opens a file to append to it, and makes it, mode 0600, in a folder that is there.
func openAuditFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600) // to read: see unended
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New(path + " is not a regular file")
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// unended tells whether the last line of a file has no end.
func unended(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1) // an error: it has just been cut
	return err == nil && last[0] != '\n'
}
