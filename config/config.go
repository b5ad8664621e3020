// Package config is what an operator may write, checked.
//
// [Load] reads one strict YAML file: an unknown key, a wrong type, a missing field, a second document or an inline secret is a
// [Problem], and all problems are reported at once, each with file, line and path. The package is plain data: cmd/bifrost
// translates it into each package's own Config.
package config

import "time"

// Config is one configuration file, checked, with defaults filled in and secrets read.
type Config struct {
	Proxy          Proxy
	Auth           Auth
	Ops            Ops
	Store          Store
	Log            Log
	EncryptionKeys []Key // newest first; may be empty with the file store
	Callers        []Caller
	Integrations   []*Integration // sorted by name
}

// Proxy is the data listener.
type Proxy struct {
	Listen            string // default 127.0.0.1:8080
	PublicURL         string // without trailing slash; empty: scheme and Host of the request
	TrustNetwork      bool
	IncludeConnectURL bool
	DrainDelay        time.Duration // default 0
	DrainTimeout      time.Duration // default 25 s
	TLS               *TLS          // nil: plain HTTP
}

// Auth is the listener of consent, screen and API.
type Auth struct {
	Listen    string // default 127.0.0.1:8081
	PublicURL string // without trailing slash; default http(s)://{listen} on a loopback address
	Operators []Operator
	TLS       *TLS
}

// Ops is the listener of metrics and health.
type Ops struct {
	Listen        string // default 127.0.0.1:8082
	PProf         bool
	PerOrgMetrics *bool // nil: up to 1,000 connections
	TLS           *TLS
}

// TLS names the files of a listener's certificate.
type TLS struct{ CertFile, KeyFile, ClientCAFile string }

// Store says where connections are kept: File, or Redis if RedisURL is not empty.
type Store struct {
	File     string // default ./bifrost.db; empty with Redis
	RedisURL Secret // redis://, rediss://, or with Sentinel or Cluster parameters
}

// Log configures the log on stderr.
type Log struct {
	Level    string // debug, info (default), warn, error
	Format   string // json (default), text
	Requests bool   // default true: one line per request
}

// Key is one encryption key: 32 bytes.
type Key struct {
	ID    string
	Bytes Secret // 32 raw bytes
}

// Operator may use the screen and the JSON API.
type Operator struct {
	Name  string
	Token Secret
}

// Caller may use the proxy.
type Caller struct {
	Name         string
	Key          Secret
	Orgs         []string // "*": every org, "@global": the right to ask for the global connection
	Integrations []string // "*": every integration
	Allow        []string // "METHOD /path/**"; empty: everything
}

// Integration is one OAuth application and the upstream API that it opens.
type Integration struct {
	Name        string
	Description string
	Route       string
	Hosts       []string
	Upstream    string // template
	Flow        string // authorization_code (default), client_credentials

	ClientID         string
	ClientSecret     Secret // empty with client_auth none
	ClientAuth       string // post (default), basic, none
	AuthorizationURL string // template
	TokenURL         string // template
	RevocationURL    string // template
	Issuer           string
	Audience         string
	Scopes           []string
	PKCE             string // s256 (default), off
	RefreshTokens    string // reusable (default), rotating, one_time

	AuthorizationParams map[string]string // templates
	TokenParams         map[string]string // templates
	Headers             map[string]string // templates

	DefaultEntityID string
	DefaultVars     map[string]string
	OrgSettings     map[string]OrgSetting
	OnlyOrgs        []string // nil: every org
	Fallback        string   // global (default), none

	InjectHeader string // default Authorization; empty with InjectQuery
	InjectFormat string // default "Bearer {access_token}"
	InjectQuery  string // name of a query parameter; empty: a header

	Methods         []string // default GET HEAD POST PUT PATCH DELETE OPTIONS
	Allow, Deny     []string // "METHOD /path/**"
	WebSocket       bool
	RewriteLinks    bool
	MaxBody         int64 // bytes; 0: unlimited
	ReplayBodyLimit int64 // bytes; default 64 KiB

	DialTimeout           time.Duration // default 10 s
	ResponseHeaderTimeout time.Duration // default 60 s
	TokenTimeout          time.Duration // default 0: by refresh class

	DefaultTokenLifetime     time.Duration // default 1 h
	RefreshTokenIdleLifetime time.Duration // default 0: unknown
}

// OrgSetting is one org's values of an integration's placeholders.
type OrgSetting struct {
	EntityID string
	Vars     map[string]string
}

// Resolved is an integration's templates with one org's values.
type Resolved struct {
	EntityID            string
	Upstream            string
	AuthorizationURL    string
	TokenURL            string
	RevocationURL       string
	AuthorizationParams map[string]string
	TokenParams         map[string]string
	Headers             map[string]string
}

// Secret is a value that must not be printed: every format verb, log call and encoder gives [redacted].
type Secret string

// Reveal returns the secret.
func (s Secret) Reveal() string { return string(s) }

// Load reads and checks the file at path. Environment variables are looked up with env (nil: os.LookupEnv). The error is a
// Problems, which holds every problem at once.
func Load(path string, env func(string) (string, bool)) (*Config, error) { panic("skeleton") }

// Resolve returns the integration's templates with the values of org ("@global": the defaults), or an error that names the
// placeholder without a value.
func (in *Integration) Resolve(org string) (Resolved, error) { panic("skeleton") }
