package config

import (
	"os"
	"path/filepath"
	"slices"
)

// Audit says where the audit log goes: to File, to the process's stdout, or, if it is zero, nowhere.
type Audit struct {
	File   string // its folder must be there; relative paths start at the working directory, as those of store.file do
	Stdout bool
}

func readAudit(n node) Audit {
	o, ok := n.object()
	var a Audit
	file, stdout := o.at("file"), o.at("stdout")
	set(file, &a.File, line)
	setBool(stdout, &a.Stdout)
	switch {
	case ok && n.given() && !file.given() && !stdout.given():
		n.problem("says nowhere to write: add file: PATH or stdout: true, or remove the key")
	case file.given() && a.Stdout:
		stdout.problem("stands beside audit.file: there is one audit log, remove one of them")
	}
	o.close()
	return a
}

// checkAudit keeps the audit log out of the files of the store and of those that are read, which it would damage.
func checkAudit(root *object, c *Config) {
	if c.Audit.File == "" {
		return
	}
	section, _ := root.at("audit").object()
	file := section.at("file")
	if c.Store.File != "" {
		for _, suffix := range []string{"", ".id", ".key"} {
			if samePath(c.Audit.File, c.Store.File+suffix) {
				file.problem("is a file of the store: name another")
				return
			}
		}
	}
	if slices.ContainsFunc(root.files, func(read string) bool { return samePath(c.Audit.File, read) }) {
		file.problem("is a file that the configuration is read from: name another")
	}
}

// samePath tells whether two paths lead to one file, be it there already or not.
func samePath(a, b string) bool {
	absolute, err := filepath.Abs(a)
	other, failed := filepath.Abs(b)
	if err == nil && failed == nil && absolute == other {
		return true
	}
	there, err := os.Stat(a)
	same, failed := os.Stat(b)
	return err == nil && failed == nil && os.SameFile(there, same)
}
