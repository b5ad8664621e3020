package e2e_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// signInSite is a bifrost whose operators sign in at a certified provider.
type signInSite struct {
	*replica
	provider *script
	rounds   int // of forget
}

func newSignInSite(t *testing.T) *signInSite {
	t.Helper()
	account := func(name string, groups ...string) map[string]any {
		return map[string]any{"email": name + "@example.com", "email_verified": true, "groups": groups}
	}
	provider := startScript(t, "oidcsignin.mjs", map[string]any{"accounts": map[string]any{
		"alice": account("alice", "staff", "bifrost-operators"), "vera": account("vera", "staff"), "mallory": account("mallory", "guests"),
	}})
	issuer := provider.await(t, "its address", patience, named("listening")).text("issuer")
	s := newSite(t, newProvider(t, authflowtest.Config{}))
	s.env["SSO_SECRET"] = "CANARY-sso-client-secret"
	s.replace("ops: {listen: OPS}", `  oidc:
    issuer: `+issuer+`
    client_id: bifrost
    client_secret: {env: SSO_SECRET}
    scopes: openid email groups
    contact: "the platform team <platform@example.com>"
    allowed_groups: [bifrost-operators]
    rules:
      - {groups: [staff], role: viewer}
ops: {listen: OPS}`)
	site := &signInSite{replica: s.start(), provider: provider}
	site.register()
	site.adopt("acme")
	return site
}

// register makes the provider know bifrost at its present address.
func (s *signInSite) register() {
	s.t.Helper()
	s.provider.send(s.t, map[string]any{"register": map[string]string{
		"id": "bifrost", "secret": s.site.env["SSO_SECRET"], "redirect_uri": s.auth + "/integrations/sign-in/callback",
	}})
	s.provider.await(s.t, "that it knows bifrost", patience, named("registered"))
}

// forget ends every session at the provider.
func (s *signInSite) forget() {
	s.t.Helper()
	s.rounds++
	s.provider.send(s.t, map[string]any{"forget": s.rounds})
	s.provider.await(s.t, "that it has forgotten", patience, func(e event) bool {
		return e.text("event") == "forgotten" && e["round"] == float64(s.rounds)
	})
}

// TestOperatorsSignInAtACertifiedProvider signs people in, out and off in a real browser.
func TestOperatorsSignInAtACertifiedProvider(t *testing.T) {
	t.Parallel()
	s := newSignInSite(t)
	for _, look := range []look{
		{name: "sign-in-light", width: 1280, scheme: "light", script: true},
		{name: "sign-in-dark-without-javascript", width: 1280, scheme: "dark"},
		{name: "sign-in-narrow", width: 390, scheme: "light", script: true},
	} {
		t.Run(look.name, func(t *testing.T) {
			s.signInStory(newBrowser(t, look))
			s.forget()
		})
	}
	require.Empty(t, s.provider.told(named("error")))
	require.NotContains(t, s.stderr.String(), "CANARY")
	require.Contains(t, s.stderr.String(), `"operator":"mallory@example.com"`)

	require.NoError(t, s.provider.in.Close()) // the provider goes down
	<-s.provider.done
	s.stop()
	restarted := s.site.start()
	for _, look := range []look{
		{name: "sign-in-light", width: 1280, scheme: "light", script: true},
		{name: "sign-in-narrow", width: 390, scheme: "light", script: true},
	} {
		restarted.unreachableStory(newBrowser(t, look))
	}
}

func (s *signInSite) signInStory(b *browser) {
	screen := s.auth + "/integrations"
	b.open(screen + "?q=ac")
	b.sees("Operator token")
	b.shot("1-sign-in")

	b.press("Sign in with SSO")
	b.sees("Test provider")
	b.press("Cancel")
	b.sees("You were not signed in")
	b.refused(http.StatusForbidden)
	b.shot("2-denied")
	b.press("Back to sign-in")

	s.signsIn(b, "mallory")
	b.sees("You have no access here")
	b.sees("mallory@example.com")
	b.sees("ask the platform team <platform@example.com>")
	b.refused(http.StatusForbidden)
	b.shot("3-no-access")
	b.open(screen)
	b.sees("Operator token") // he is not signed in

	b.open(screen + "?q=ac")
	b.press("Sign in with SSO") // the provider still knows him
	b.sees("You have no access here")
	b.refused(http.StatusForbidden)
	b.press("Use another account")
	s.answers(b, "alice")
	if !b.look.script {
		b.press("Continue") // the provider's page that ends the other account's session
	}
	b.sees("Signed in as alice@example.com")
	b.seesInRow("acme", "Active")
	b.shot("4-operator")
	b.press("Refresh acme")
	b.sees("was refreshed")

	b.press("Sign out")
	b.sees("Operator token")
	b.press("Sign in with SSO") // the provider's own session lasts
	b.sees("Signed in as alice@example.com")

	s.forget() // it ends, ours does not
	b.open(screen)
	b.sees("Signed in as alice@example.com")
	b.press("Sign out")
	b.sees("Operator token")
	b.open(screen + "?q=acm") // what is looked for is shown after the sign-in
	s.signsIn(b, "vera")
	b.sees("Signed in as vera@example.com")
	b.sees("Showing connections whose organization contains “acm”")
	b.seesInRow("acme", "Active")
	b.shot("5-viewer")
	for _, absent := range []string{"Refresh acme", "Reconnect acme", "Connect"} {
		require.EqualValues(b.t, 0, b.do(map[string]any{"do": "has", "button": absent})["count"], absent)
	}
	b.press("Sign out")
	b.sees("Operator token")
}

// signsIn goes from our form through the provider's.
func (s *signInSite) signsIn(b *browser, account string) {
	b.t.Helper()
	b.press("Sign in with SSO")
	s.answers(b, account)
}

func (s *signInSite) answers(b *browser, account string) {
	b.t.Helper()
	b.sees("Test provider")
	b.fill("Account", account)
	b.press("Next")
}

// unreachableStory is of a provider that has been down since the start.
func (r *replica) unreachableStory(b *browser) {
	b.open(r.auth + "/integrations")
	b.sees("Single sign-on is unreachable")
	b.shot("6-unreachable")
	b.fill("Operator token", operatorToken)
	b.press("Sign in")
	b.sees("Signed in as ops")
	b.seesInRow("acme", "Active")
}
