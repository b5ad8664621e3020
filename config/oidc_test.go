package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

const provider = `auth:
  listen: ":8081"
  public_url: https://bifrost.example.com
  oidc:
    issuer: https://login.example.com/tenant/
    client_id: bifrost
    client_secret: {env: OIDC}
`

func loadOIDC(t *testing.T, keys string) *config.OIDC {
	t.Helper()
	cfg, err := config.Load(write(t, provider+keys+rest), badEnv)
	require.NoError(t, err)
	return cfg.Auth.OIDC
}

func TestTheShortWayToSayWhoMaySignIn(t *testing.T) {
	require.Equal(t, &config.OIDC{
		Issuer: "https://login.example.com/tenant/", ClientID: "bifrost", ClientSecret: "CANARY-OIDC",
		Scopes: []string{"openid", "email", "profile"}, GroupsClaim: "groups", Contact: "the operators of this Bifrost",
		Rules: []config.Rule{{Domains: []string{"example.com"}}},
	}, loadOIDC(t, "    allowed_domains: [Example.COM]\n"))
}

func TestTheLongWayToSayWhoMaySignIn(t *testing.T) {
	require.Equal(t, &config.OIDC{
		Issuer: "https://login.example.com/tenant/", ClientID: "bifrost", ClientSecret: "CANARY-OIDC",
		Scopes: []string{"openid", "groups"}, GroupsClaim: "roles", Contact: "the platform team, #platform", TrustEmail: true,
		Rules: []config.Rule{
			{Emails: []string{"boss@example.com"}, Rights: config.Rights{Integrations: []string{"Graph"}}},
			{Groups: []string{"Admins"}, Claims: map[string][]string{"tid": {"a", "b"}}},
			{Domains: []string{"example.com"}, Rights: config.Rights{Viewer: true}},
		},
	}, loadOIDC(t, `    scopes: openid groups
    groups_claim: roles
    trust_email: true
    contact: "the platform team, #platform"
    allowed_emails: [Boss@Example.com]
    integrations: [Graph]
    rules:
      - {groups: [Admins], claims: {tid: [a, b]}, role: operator}
      - {domains: [example.com], role: viewer}
`))
}
