package main

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"text/template"

	"github.com/bifrost-proxy/bifrost/config"
)

// configTemplate is a configuration as an operator would write it; only callers and operators are left out, which loopback
// allows.
var configTemplate = template.Must(template.New("bifrost.yaml").Parse(`# The configuration of bifrost-demo. A change is loaded at once.
proxy:
  listen: {{.Proxy}}
auth:
  listen: {{.Auth}}
ops:
  listen: {{.Ops}}
store:
  file: {{.Store}}
integrations:
  {{.Integration}}:
    description: Users of a directory, from the demo's own API
    route: {{.Route}}
    upstream: {{.API}}
    client_id: {{.ClientID}}
    client_secret: {env: {{.Secret}}}
    authorization_url: {{.Provider}}/{entity_id}/authorize
    token_url: {{.Provider}}/{entity_id}/token
    revocation_url: {{.Provider}}/{entity_id}/revoke
    scopes: offline_access Directory.Read.All
    default_entity_id: common
    org_settings:
      acme: {entity_id: acme.example}
      globex: {entity_id: globex.example}
    refresh_tokens: one_time
`))

// writeConfig writes the configuration and checks it as bifrost will.
func (d *demo) writeConfig() (string, error) {
	var text bytes.Buffer
	err := configTemplate.Execute(&text, map[string]string{
		"Proxy": host(d.proxy), "Auth": host(d.auth), "Ops": host(d.ops), "Store": filepath.Join(d.dir, "bifrost.db"),
		"Integration": integration, "Route": route, "API": d.api, "Provider": d.provider.BaseURL,
		"ClientID": d.provider.ClientID(), "Secret": secretName,
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(d.dir, "bifrost.yaml")
	if err := os.WriteFile(file, text.Bytes(), 0o600); err != nil {
		return "", err
	}
	_, err = config.Load(file, func(name string) (string, bool) { return d.provider.ClientSecret(), name == secretName })
	return file, err
}

func host(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		panic(err) // start made it
	}
	return u.Host
}
