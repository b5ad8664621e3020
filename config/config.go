// Package config is what an operator may write, checked.
//
// [Load] reads one strict YAML file: an unknown key, a wrong type, a missing field, a second document or an inline secret is a
// [Problem], and all problems are reported at once, each with file, line and path. The package is plain data: cmd/bifrost
// translates it into each package's own Config.
package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// Config is one configuration file, checked, with defaults filled in and secrets read.
type Config struct {
	Proxy          Proxy
	Auth           Auth
	Ops            Ops
	Store          Store
	Log            Log
	Audit          Audit
	EncryptionKeys []Key // newest first; may be empty with the file store
	Callers        []Caller
	CallerJWT      []CallerJWT
	Integrations   []*Integration // sorted by name

	files []string
}

// Load is [Loader.Load] with env and without further checks.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	return Loader{Env: env}.Load(path)
}

// Loader reads configuration files. The zero Loader is usable.
type Loader struct {
	// Env looks up environment variables; nil: os.LookupEnv.
	Env func(name string) (string, bool)
	// CheckRedisURL says what is wrong with store.redis.url beyond its scheme; nil: nothing is. What the store refuses is the
	// store's to know. Its error becomes a Problem, so that it must not quote the URL.
	CheckRedisURL func(url string, allowInsecure bool) error
	// CheckAddress says why an upstream that is written as an IP address would be refused; nil: none would. Which are is the
	// proxy's to know.
	CheckAddress func(ip netip.Addr, allowPrivate []netip.Prefix) error
}

// Load reads and checks the file at path. The error is a Problems, which holds every problem at once.
func (l Loader) Load(path string) (*Config, error) {
	if l.Env == nil {
		l.Env = os.LookupEnv
	}
	if l.CheckRedisURL == nil {
		l.CheckRedisURL = func(string, bool) error { return nil }
	}
	if l.CheckAddress == nil {
		l.CheckAddress = func(netip.Addr, []netip.Prefix) error { return nil }
	}
	r := &reader{file: path, dir: filepath.Dir(path), env: l.Env, checkRedisURL: l.CheckRedisURL, checkAddress: l.CheckAddress, files: []string{path}}
	cfg := &Config{}
	if root, ok := r.root(); ok {
		cfg.read(root)
	}
	if len(r.problems) > 0 {
		return nil, r.problems.sorted()
	}
	cfg.files = r.files
	return cfg, nil
}

// Files returns the files that the configuration came from: the file itself first, then every file that a secret, key or
// certificate was read from. A change of any of them can change the configuration.
func (c *Config) Files() []string { return slices.Clone(c.files) }

func (c *Config) read(n node) {
	o, ok := n.object()
	if !ok {
		return
	}
	c.Integrations = readIntegrations(o.need("integrations"))
	c.EncryptionKeys = readKeys(o.at("encryption_keys"))
	c.CallerJWT = readCallerJWT(o.at("caller_jwt"))
	c.Callers = readCallers(o.at("callers"), c.Integrations, c.CallerJWT)
	checkCallerJWT(o.at("caller_jwt"), c)
	c.Log = readLog(o.at("log"))
	c.Audit = readAudit(o.at("audit"))
	c.Store = readStore(o.at("store"), o.at("encryption_keys"))
	c.Proxy = readProxy(o.at("proxy"), o.at("callers").lists() || o.at("caller_jwt").given())
	c.Auth = readAuth(o.at("auth"), c.Integrations)
	c.Ops = readOps(o.at("ops"))
	checkPorts(o)
	checkHosts(o, c)
	checkLimits(o, c)
	checkSANs(o)
	checkAudit(o, c)
	o.close()
}
