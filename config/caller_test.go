package config_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

func TestACallerHasAnyNumberOfKeysInEitherForm(t *testing.T) {
	digest := func(env string) [sha256.Size]byte { return sha256.Sum256([]byte("CANARY-" + env)) }
	end := time.Date(2027, 1, 30, 22, 0, 0, 0, time.UTC)
	for text, want := range map[string][]config.CallerKey{
		"key: {env: A}": {{SHA256: digest("A")}},
		"key: {env: A}, not_after: 2027-01-31T00:00:00+02:00":                       {{SHA256: digest("A"), NotAfter: end}},
		fmt.Sprintf("key_sha256: %x, not_after: 2027-01-30T22:00:00Z", digest("A")): {{SHA256: digest("A"), NotAfter: end}},
		fmt.Sprintf("key: {env: B}, keys: [{key_sha256: %X, not_after: \"2027-01-30T22:00:00Z\"}, {key: {env: C}}]", digest("A")): {
			{SHA256: digest("B")}, {SHA256: digest("A"), NotAfter: end}, {SHA256: digest("C")},
		},
		"keys: [{key: {env: A}}]": {{SHA256: digest("A")}},
		"key_sha256: 1234567890123456789012345678901234567890123456789012345678901234": {{SHA256: [32]byte{
			0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12,
			0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34,
		}}},
	} {
		t.Run(text, func(t *testing.T) {
			cfg := load(t, write(t, `callers: [{name: a, `+text+`, orgs: ["*"], integrations: ["*"]}]`+"\n"+minimal(t)))
			require.Equal(t, want, cfg.Callers[0].Keys)
		})
	}
}

func TestSANsHaveOneFormEach(t *testing.T) {
	dir := t.TempDir()
	makeCertificate(t, dir, "tls")
	file := filepath.Join(dir, "bifrost.yaml")
	text := `proxy: {tls: {cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.crt}}
callers:
  - name: jobs
    sans: [spiffe://cluster.local/ns/a/sa/jobs, "https://jobs.example.com/a%2Fb?c=d", "dns:Jobs.Example.com", "dns:localhost", "email:Jobs@example.com", "ip:::ffff:10.1.2.3", "ip:2001:DB8:0::1"]
    orgs: ["*"]
    integrations: ["*"]
` + minimal(t)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	require.Equal(t, []config.Caller{{
		Name: "jobs",
		SANs: []string{
			"spiffe://cluster.local/ns/a/sa/jobs", "https://jobs.example.com/a%2Fb?c=d", "dns:jobs.example.com", "dns:localhost", "email:Jobs@example.com",
			"ip:10.1.2.3", "ip:2001:db8::1",
		},
		Orgs: []string{"*"}, Integrations: []string{"*"},
	}}, load(t, file).Callers)
}
