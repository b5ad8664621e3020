package config

import "path/filepath"

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

// checkAudit keeps the audit log out of the files of the store, which it would damage.
func checkAudit(root *object, c *Config) {
	if c.Audit.File == "" || c.Store.File == "" {
		return
	}
	section, _ := root.at("audit").object()
	for _, suffix := range []string{"", ".id", ".key"} {
		if filepath.Clean(c.Audit.File) == filepath.Clean(c.Store.File+suffix) {
			section.at("file").problem("is a file of the store: name another")
		}
	}
}
