package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/proxy"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// configFlag is the name and default of the flag that serve and check share.
const configFlag, configDefault = "config", "bifrost.yaml"

// runCheck prints one line per problem, FILE:LINE: path: message, or a summary of what the file sets up.
func runCheck(_ context.Context, args []string, std stdio) error {
	fs := newFlags("check")
	path := fs.String(configFlag, configDefault, "configuration `file`")
	if _, err := parse(fs, args, std); err != nil {
		return err
	}
	cfg, err := load(*path, std.env)
	if err != nil {
		fmt.Fprintln(std.out, err)
		return errReported
	}
	for _, name := range unbound(cfg) {
		fmt.Fprintf(std.err, "note: integrations.%s.expose_token: %s\n", name, unboundText)
	}
	for _, k := range endingKeys(cfg, time.Now()) {
		fmt.Fprintf(std.err, "note: caller %s, key_sha256 %s…, not_after %s: %s\n", k.caller, k.digest, k.notAfter.Format(time.RFC3339), k.message())
	}
	sso := ""
	if cfg.Auth.OIDC != nil {
		sso = " and those of " + cfg.Auth.OIDC.Issuer
	}
	_, err = fmt.Fprintf(std.out, "ok: %s: %d integrations, %d callers, %d operators%s, store %s\n",
		*path, len(cfg.Integrations), len(cfg.Callers), len(cfg.Auth.Operators), sso, storeKind(cfg))
	return err
}

// load reads a configuration, for every command: what the store or the proxy refuses of it is a problem like any other.
func load(path string, env func(string) (string, bool)) (*config.Config, error) {
	return config.Loader{Env: env, CheckRedisURL: tokenstore.CheckRedisURL, CheckAddress: proxy.CheckAddress}.Load(path)
}
