package config_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

func TestWhatIsLeftOutHasItsDefault(t *testing.T) {
	cfg := load(t, "testdata/minimal.yaml")
	requireSame(t, &config.Config{
		Proxy: config.Proxy{
			Listen: "127.0.0.1:8080", MaxConcurrent: 20_000, DrainTimeout: 25 * time.Second, BodyIdle: time.Minute, WriteIdle: 10 * time.Minute,
		},
		Auth:  config.Auth{Listen: "127.0.0.1:8081", PublicURL: "http://127.0.0.1:8081"},
		Ops:   config.Ops{Listen: "127.0.0.1:8082"},
		Store: config.Store{File: "./bifrost.db"},
		Log:   config.Log{Level: "info", Format: "json", Requests: true},
		Integrations: []*config.Integration{{
			Name:                  "Graph",
			Route:                 "/graph",
			Upstream:              "https://graph.example.com",
			Flow:                  "authorization_code",
			ClientID:              "id",
			ClientAuth:            "post",
			ClientSecret:          "CANARY-SECRET",
			AuthorizationURL:      "https://login.example.com/authorize",
			TokenURL:              "https://login.example.com/token",
			PKCE:                  "s256",
			RefreshTokens:         "reusable",
			Fallback:              "global",
			InjectHeader:          "Authorization",
			InjectFormat:          "Bearer {access_token}",
			Methods:               []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"},
			ReplayBodyLimit:       64 << 10,
			Limits:                config.Limits{UpstreamRetryAfter: true},
			DialTimeout:           10 * time.Second,
			ResponseHeaderTimeout: time.Minute,
			DefaultTokenLifetime:  time.Hour,
			WebSocketIdle:         10 * time.Minute,
			WebSocketLifetime:     12 * time.Hour,
			WebSockets:            1000,
		}},
	}, cfg)
	require.Equal(t, []string{"testdata/minimal.yaml"}, cfg.Files())
}

func TestEveryKeyIsRead(t *testing.T) {
	cfg := load(t, "testdata/full.yaml")
	rules := []string{"GET /v1.0/**", "* /users/*/photo", "POST /a%2Fb/"}
	second := load(t, "testdata/minimal.yaml").Integrations[0]
	second.Name, second.Route, second.Upstream = "Second", "/second", "http://127.0.0.1:9999"
	second.Flow, second.ClientID = "client_credentials", "12345"
	second.AuthorizationURL, second.TokenURL = "", "http://localhost:9998/token"
	second.InjectHeader, second.InjectFormat, second.InjectQuery = "", "{access_token}", "key"
	second.ExposeToken = true
	requireSame(t, &config.Config{
		Proxy: config.Proxy{
			Listen:            "0.0.0.0:9080",
			PublicURL:         "https://api.bifrost.example.com",
			TrustNetwork:      true,
			IncludeConnectURL: true,
			MaxConcurrent:     500,
			DrainDelay:        5 * time.Second,
			DrainTimeout:      time.Minute,
			BodyIdle:          20 * time.Second,
			WriteIdle:         5 * time.Minute,
		},
		Auth: config.Auth{
			Listen:    "[::1]:9081",
			PublicURL: "https://bifrost.example.com/bifrost",
			Operators: []config.Operator{{Name: "ops@example.com", Token: "CANARY-TOKEN"}, {Name: "ops", Token: "CANARY-from-a-file"}},
		},
		Ops: config.Ops{Listen: "localhost:9082", PProf: true, PerOrgMetrics: new(false)},
		Store: config.Store{
			RedisURL: "rediss://:CANARY@redis.example.com:6379", RedisWaitReplicas: 2, RedisAcceptDataLoss: true, RedisAllowInsecure: true,
		},
		Log:   config.Log{Level: "debug", Format: "text"},
		Audit: config.Audit{File: "logs/audit.log"},
		EncryptionKeys: []config.Key{
			{ID: "2026-11", Bytes: "CANARY-key-CANARY-key-CANARY-key"},
			{ID: "2025-11-01", Bytes: "CANARY-key-CANARY-key-CANARY-kex"},
		},
		Callers: []config.Caller{{
			Name: "jobs", Keys: []config.CallerKey{{SHA256: sha256.Sum256([]byte("CANARY-from-a-file"))}}, Orgs: []string{"*", "@global", "acme"}, Integrations: []string{"Full", "*"}, Allow: rules,
		}, {
			Name: "agent", Keys: []config.CallerKey{
				{SHA256: sha256.Sum256([]byte("CANARY-AGENT")), NotAfter: time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)},
				{SHA256: [32]byte(bytes.Repeat([]byte("\x01\x23\x45\x67\x89\xab\xcd\xef"), 4))},
			}, Orgs: []string{"acme"}, Integrations: []string{"Second"}, MayReadTokens: true,
		}, {
			Name: "sync", Orgs: []string{"acme"}, Integrations: []string{"Full"}, Subjects: []config.Subject{
				{Issuer: "https://kubernetes.example.com", Subject: "system:serviceaccount:sync:default"},
				{Issuer: "https://login.example.com/tenant/v2.0", Subject: "22222222-3333-4444-5555-666666666666"},
			},
		}},
		CallerJWT: []config.CallerJWT{{
			Issuer:     "https://kubernetes.example.com",
			Audience:   []string{"bifrost"},
			JWKSURL:    "http://localhost:8001/openid/v1/jwks?at=once",
			Algorithms: []string{"EdDSA", "PS512"},
			OrgClaim:   []string{"kubernetes.io", "namespace"},
		}, {
			Issuer:            "https://login.example.com/tenant/v2.0",
			Audience:          []string{"api://bifrost", "11111111-2222-3333-4444-555555555555"},
			Algorithms:        []string{"RS256", "ES256"},
			OrgClaim:          []string{"tid"},
			IntegrationsClaim: []string{"roles"},
		}},
		Integrations: []*config.Integration{{
			Name:        "Full",
			Description: "Everything",
			Route:       "/full/v1",
			Hosts:       []string{"graph.local", "localhost:8080"},
			Upstream:    "https://{vars.region}.graph.example.com/api",
			AllowPrivate: []netip.Prefix{
				netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("192.168.1.7/32"),
				netip.MustParsePrefix("fd12:3456::/32"), netip.MustParsePrefix("::1/128"),
			},
			Flow:                "authorization_code",
			ClientID:            "11111111-2222-3333-4444-555555555555",
			ClientSecret:        "CANARY-SECRET",
			ClientAuth:          "basic",
			AuthorizationURL:    "https://login.example.com/{entity_id}/authorize?tenant={vars.region}",
			TokenURL:            "https://login.example.com/{entity_id}/token",
			RevocationURL:       "https://login.example.com/{entity_id}/revoke",
			Issuer:              "https://login.example.com/",
			Audience:            "https://graph.example.com",
			Scopes:              []string{"offline_access", "Directory.Read.All"},
			PKCE:                "off",
			RefreshTokens:       "one_time",
			AuthorizationParams: map[string]string{"prompt": "consent"},
			TokenParams:         map[string]string{"resource": "https://graph.example.com/{entity_id}"},
			Headers:             map[string]string{"X-Region": "region={vars.region}"},
			DefaultEntityID:     "common",
			DefaultVars:         map[string]string{"region": "eu"},
			OrgSettings:         map[string]config.OrgSetting{"acme": {EntityID: "contoso.onmicrosoft.com", Vars: map[string]string{"region": "us"}}, "globex": {}},
			OnlyOrgs:            []string{"acme", "globex"},
			Fallback:            "none",
			InjectHeader:        "X-Api-Key",
			InjectFormat:        "Token {access_token}",
			Methods:             []string{"GET", "PROPFIND"},
			Allow:               rules,
			Deny:                []string{"POST /v1.0/$batch"},
			WebSocket:           true,
			RewriteLinks:        true,
			MaxBody:             10 << 20,
			ReplayBodyLimit:     128 << 10,
			Limits: config.Limits{
				PerOrg:     config.Quota{Rate: 2.5, Burst: 10, Concurrent: 3},
				PerCaller:  config.Quota{Rate: 2.5, Burst: 3},
				Concurrent: 50,
			},
			DialTimeout:              time.Second,
			ResponseHeaderTimeout:    2 * time.Second,
			TokenTimeout:             3 * time.Second,
			WebSocketIdle:            4 * time.Minute,
			WebSocketLifetime:        5 * time.Hour,
			WebSockets:               6,
			DefaultTokenLifetime:     30 * time.Minute,
			RefreshTokenIdleLifetime: 90 * 24 * time.Hour,
			AccessTokenDiesOnRefresh: true,
		}, second},
	}, cfg)
	require.Equal(t, []string{"testdata/full.yaml", "testdata/secret"}, cfg.Files())
}

func TestTheExampleLoadsAndShowsEveryKey(t *testing.T) {
	example, err := os.ReadFile("../deploy/bifrost.example.yaml")
	require.NoError(t, err)
	load(t, "../deploy/bifrost.example.yaml")

	full, err := os.ReadFile("testdata/full.yaml")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`\b([a-z_]+): `).FindAllStringSubmatch(string(full), -1) {
		require.Regexp(t, `\b`+m[1]+`: `, string(example))
	}
}

func TestARotatingTokenHasAGrace(t *testing.T) {
	grace := func(keys string) time.Duration {
		return load(t, write(t, minimal(t)+keys)).Integrations[0].RefreshGrace
	}
	require.Zero(t, grace(""))
	require.Equal(t, 30*time.Second, grace("    refresh_tokens: rotating\n"))
	require.Equal(t, 10*time.Minute, grace("    refresh_tokens: rotating\n    refresh_grace: 10m\n"))
	require.Equal(t, 6*time.Second, grace("    refresh_tokens: rotating\n    refresh_grace: 6s\n"), "the shortest")
}

func TestTheEnvironmentIsTheProcessesUnlessAnotherIsGiven(t *testing.T) {
	t.Setenv("SECRET", "CANARY-real")
	cfg, err := config.Load("testdata/minimal.yaml", nil)
	require.NoError(t, err)
	require.Equal(t, "CANARY-real", cfg.Integrations[0].ClientSecret.Reveal())
}

func TestAFileThatCannotBeReadIsAProblem(t *testing.T) {
	_, err := config.Load(filepath.Join(t.TempDir(), "none.yaml"), badEnv)
	require.Equal(t, []string{"1: cannot be read: no such file or directory"}, problems(t, err))
}

func TestListenersBeyondLoopbackAreFineWithSomebodyToAsk(t *testing.T) {
	cfg := load(t, write(t, `
proxy: {listen: ":8080"}
auth: {listen: "0.0.0.0:0", public_url: "https://bifrost.example.com", operators: [{name: ops, token: {env: TOKEN}}]}
ops: {listen: "0.0.0.0:0"}
callers: [{name: a, key: {env: A}, orgs: [acme], integrations: [Graph]}]
`+minimal(t)))
	require.Equal(t, ":8080", cfg.Proxy.Listen)
	require.Equal(t, "https://bifrost.example.com", cfg.Auth.PublicURL)
}

func TestATrustedNetworkNeedsNoCallers(t *testing.T) {
	require.True(t, load(t, write(t, "proxy: {listen: \":8080\", trust_network: true}\n"+minimal(t))).Proxy.TrustNetwork)
}

// Where nothing names orgs only subjects have rights, and a claim of integrations takes some of theirs away.
func TestAnIntegrationsClaimNeedsNoOrgClaim(t *testing.T) {
	cfg := load(t, write(t, `
caller_jwt: {issuer: https://issuer.example.com, audience: a, integrations_claim: roles}
callers: [{name: a, subjects: [pod], orgs: [acme], integrations: [Graph]}]
`+minimal(t)))
	require.Nil(t, cfg.CallerJWT[0].OrgClaim)
	require.Equal(t, []string{"roles"}, cfg.CallerJWT[0].IntegrationsClaim)
}

// load loads a good file.
func load(t *testing.T, file string) *config.Config {
	t.Helper()
	cfg, err := config.Load(file, func(name string) (string, bool) {
		if name == "BIFROST_KEY" {
			name = "KEY"
		}
		return badEnv(name)
	})
	require.NoError(t, err)
	return cfg
}

// minimal is the minimal configuration with replacements, old and new in turn. It ends inside its one integration, Graph.
func minimal(t testing.TB, replacements ...string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/minimal.yaml")
	require.NoError(t, err)
	return strings.NewReplacer(replacements...).Replace(string(text))
}

// write returns a file with the text.
func write(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bifrost.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// requireSame compares configurations, secrets included.
func requireSame(t *testing.T, want, got *config.Config) {
	t.Helper()
	require.JSONEq(t, asJSON(t, want), asJSON(t, got))
	require.Equal(t, revealed(want), revealed(got))
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.NotContains(t, string(text), "CANARY")
	return string(text)
}

// revealed lists every secret of a configuration.
func revealed(cfg *config.Config) []string {
	list := []string{cfg.Store.RedisURL.Reveal()}
	for _, k := range cfg.EncryptionKeys {
		list = append(list, k.Bytes.Reveal())
	}
	for _, o := range cfg.Auth.Operators {
		list = append(list, o.Token.Reveal())
	}
	if cfg.Auth.OIDC != nil {
		list = append(list, cfg.Auth.OIDC.ClientSecret.Reveal())
	}
	for _, in := range cfg.Integrations {
		list = append(list, in.ClientSecret.Reveal())
	}
	return list
}
