package config_test

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

func TestOneResolverServesEveryTemplate(t *testing.T) {
	full := load(t, "testdata/full.yaml").Integrations[0]
	byDefault := config.Resolved{
		EntityID:            "common",
		Upstream:            "https://eu.graph.example.com/api",
		AuthorizationURL:    "https://login.example.com/common/authorize?tenant=eu",
		TokenURL:            "https://login.example.com/common/token",
		RevocationURL:       "https://login.example.com/common/revoke",
		AuthorizationParams: map[string]string{"prompt": "consent"},
		TokenParams:         map[string]string{"resource": "https://graph.example.com/common"},
		Headers:             map[string]string{"X-Region": "region=eu"},
	}
	for _, org := range []string{"@global", "globex", "an-org-without-settings"} {
		got, err := full.Resolve(org)
		require.NoError(t, err)
		require.Equal(t, byDefault, got, org)
	}
	got, err := full.Resolve("acme")
	require.NoError(t, err)
	require.Equal(t, config.Resolved{
		EntityID:            "contoso.onmicrosoft.com",
		Upstream:            "https://us.graph.example.com/api",
		AuthorizationURL:    "https://login.example.com/contoso.onmicrosoft.com/authorize?tenant=us",
		TokenURL:            "https://login.example.com/contoso.onmicrosoft.com/token",
		RevocationURL:       "https://login.example.com/contoso.onmicrosoft.com/revoke",
		AuthorizationParams: map[string]string{"prompt": "consent"},
		TokenParams:         map[string]string{"resource": "https://graph.example.com/contoso.onmicrosoft.com"},
		Headers:             map[string]string{"X-Region": "region=us"},
	}, got)
}

func TestAPlaceholderWithoutAValueForThisOrgIsNamed(t *testing.T) {
	text := minimal(t, "https://graph.", "https://{vars.shop}.") + "    org_settings: {acme: {vars: {shop: acme-shop}}}\n"
	graph := load(t, write(t, text)).Integrations[0]
	got, err := graph.Resolve("acme")
	require.NoError(t, err)
	require.Equal(t, "https://acme-shop.example.com", got.Upstream)
	for _, org := range []string{"globex", "@global"} {
		_, err = graph.Resolve(org)
		require.EqualError(t, err, "config: integrations.Graph.upstream: {vars.shop} has no value for org "+strconv.Quote(org))
	}
}

func TestAnIntegrationMadeByHandResolvesToo(t *testing.T) {
	in := &config.Integration{Name: "Graph", TokenURL: "https://login.example.com/{entity_id}/token", DefaultEntityID: "common"}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			got, err := in.Resolve("acme")
			if err != nil || got.TokenURL != "https://login.example.com/common/token" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	wg.Wait()

	in.TokenURL = "https://login.example.com/{"
	_, err := in.Resolve("acme")
	require.ErrorContains(t, err, "token_url")
}

// Whatever value is accepted stays in its place: it makes no other domain, path segment, parameter or header line.
func FuzzAValueStaysInItsPlace(f *testing.F) {
	for _, v := range []string{"contoso.onmicrosoft.com", "a", "..", "a/b", "a?b", "a#b", "a@b", "a:1", "a%2fb", "A~b", "é", "a\r\nb", "a.",
		"-a", strings.Repeat("a", 300)} {
		f.Add(v)
	}
	inHost := minimal(f, "https://graph.", "https://{vars.v}.") + "    default_vars: {v: "
	elsewhere := minimal(f, "com/authorize", "com/{vars.v}/a?x={vars.v}&y=1") + "    headers: {X-V: \"{vars.v}\"}\n    default_vars: {v: "
	safe := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*$`)
	f.Fuzz(func(t *testing.T, v string) {
		if cfg, err := config.Load(write(t, inHost+strconv.Quote(v)+"}\n"), badEnv); err == nil {
			u := parse(t, resolved(t, cfg).Upstream)
			require.True(t, strings.HasSuffix(u.Hostname(), ".example.com"), u.Host)
			require.Equal(t, "https://"+u.Host, u.String())
		}
		if cfg, err := config.Load(write(t, elsewhere+strconv.Quote(v)+"}\n"), badEnv); err == nil {
			r := resolved(t, cfg)
			u := parse(t, r.AuthorizationURL)
			require.Equal(t, "login.example.com", u.Host)
			require.Equal(t, 2, strings.Count(u.EscapedPath(), "/"))
			require.Len(t, u.Query(), 2)
			require.Regexp(t, safe, r.Headers["X-V"])
			require.Equal(t, u.Query().Get("x"), r.Headers["X-V"])
			require.NotContains(t, []string{".", ".."}, r.Headers["X-V"])
		}
	})
}

func resolved(t *testing.T, cfg *config.Config) config.Resolved {
	t.Helper()
	r, err := cfg.Integrations[0].Resolve("acme")
	require.NoError(t, err)
	return r
}

func parse(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err)
	require.Nil(t, u.User)
	require.Empty(t, u.Fragment)
	return u
}

func BenchmarkResolve(b *testing.B) {
	cfg, err := config.Load("testdata/full.yaml", badEnv)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = cfg.Integrations[0].Resolve("acme")
	}
}

// An upstream that is written as an address may be private, so that no value may make one of a name.
func TestNoValueMakesAnAddressOfAnUpstream(t *testing.T) {
	for upstream, v := range map[string]string{
		"https://{vars.a}.0.0.5":        "10",
		"https://10.0.{vars.a}":         "0.5",
		"https://10.0.{vars.a}.5":       "0",
		"https://10.0.0.5{vars.a}":      "0",
		"https://10.0.0.{vars.a}":       "5",
		"https://[fd12::{vars.a}]":      "5",
		"https://{vars.a}.0x0.0x5":      "10",
		"https://{vars.a}localhost":     "a",
		"https://{vars.a}":              "10.0.0.5",
		"https://{vars.a}.localhost":    "a",
		"https://{vars.a}@10.0.0.5":     "a",
		"https://{vars.a}:8443":         "10.0.0.5",
		"https://example.com:{vars.a}":  "80.10.0.0.5",
		"{vars.a}://graph.example.com":  "https",
		"https://a.{vars.a}":            "5",
		"https://graph.{vars.a}.com.5":  "a",
		"https://{vars.a}.example.com.": "10.0.0.5",
	} {
		_, err := config.Load(write(t, minimal(t, "https://graph.example.com", `"`+upstream+`"`)+"    default_vars: {a: "+v+"}\n"), badEnv)
		require.Error(t, err, upstream)
	}
	for _, v := range []string{"10.0.0.5", "127.0.0.1", "localhost"} { // sub-domains
		in := load(t, write(t, minimal(t, "https://graph.example.com", "https://{vars.a}.example.com")+"    default_vars: {a: "+v+"}\n")).Integrations[0]
		got, err := in.Resolve("acme")
		require.NoError(t, err)
		require.Equal(t, "https://"+v+".example.com", got.Upstream)
	}
}
