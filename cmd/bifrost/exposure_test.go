package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// exposing has the one caller read the tokens of the one integration, and adds another that is bound to acme.
func exposing(s *setup, text string) string {
	s.vars["BOUND"], s.vars["PLAIN"] = "CANARY-bound-key", "CANARY-plain-key"
	return strings.NewReplacer(
		`integrations: ["*"]}`, `integrations: ["*"], may_read_tokens: true}
  - {name: bound, key: {env: BOUND}, orgs: [acme], integrations: [graph], may_read_tokens: true}
  - {name: plain, key: {env: PLAIN}, orgs: ["*"], integrations: ["*"]}`,
		"    scopes: read\n", "    scopes: read\n    expose_token: true\n    default_entity_id: common\n    org_settings: {acme: {entity_id: acme.example}}\n",
	).Replace(text)
}

// readToken asks the token API with a key for an org; without one there is no X-Org-ID.
func (s *setup) readToken(t *testing.T, key, org string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/_bifrost/v1/integrations/graph", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+key)
	if org != "" {
		req.Header.Set("X-Org-ID", org)
	}
	return do(t, req)
}

func TestATokenThatWasReadIsTheOrgsOwnAndWorks(t *testing.T) {
	idp := authflowtest.New(t, authflowtest.Config{})
	s := newSetup(t, idp, exposing)
	r := s.start(t)
	for _, org := range []string{"acme", "globex", "@global"} {
		s.connect(t, org)
	}
	var got struct {
		Org, Connection string
		EntityID        string `json:"entity_id"`
		OAuth           struct {
			AccessToken string `json:"access_token"`
		}
	}
	for _, row := range []struct{ key, org, asked, connection, user, entity string }{
		{callerKey, "acme", "acme", "org", "acme", "acme.example"},
		{callerKey, "globex", "globex", "org", "globex", "common"},
		{callerKey, "umbrella", "umbrella", "global", "@global", "common"},
		{"CANARY-bound-key", "", "acme", "org", "acme", "acme.example"},
	} {
		status, body := s.readToken(t, row.key, row.org)
		require.Equal(t, http.StatusOK, status, body)
		require.NoError(t, json.Unmarshal([]byte(body), &got))
		require.Equal(t, []string{row.asked, row.connection, row.entity}, []string{got.Org, got.Connection, got.EntityID})

		req, err := http.NewRequest(http.MethodGet, idp.APIURL+"/me", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+got.OAuth.AccessToken)
		status, body = do(t, req)
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, body, `"user":"`+row.user+`"`)
	}
	for _, row := range []struct {
		key, org string
		status   int
	}{
		{"CANARY-bound-key", "globex", 403},
		{"CANARY-plain-key", "acme", 403},
		{"CANARY-wrong-key", "acme", 401},
	} {
		status, body := s.readToken(t, row.key, row.org)
		require.Equal(t, row.status, status, body)
	}
	require.NotContains(t, r.stderr.String(), unboundText, "there are no rules to get round")
}

func TestAReloadStopsTheReadingOfTokens(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), exposing)
	s.start(t)
	s.connect(t, "acme")
	status, body := s.readToken(t, callerKey, "acme")
	require.Equal(t, http.StatusOK, status, body)

	s.write(t, strings.Replace(exposing(s, s.text()), "expose_token: true", "expose_token: false", 1))
	require.Eventually(t, func() bool {
		status, _ = s.readToken(t, callerKey, "acme")
		return status == http.StatusForbidden
	}, patience, pollTime)
	status, body = s.call(t, "acme", "/graph/me")
	require.Equal(t, http.StatusOK, status, body)
}

// A token takes whoever reads it past the integration's rules: an operator is told at start, on a reload, and by check.
func TestRulesThatAReaderOfTokensGetsRoundAreTold(t *testing.T) {
	for name, rule := range map[string]string{
		"deny":    `deny: ["POST /v1.0/$batch"]`,
		"allow":   `allow: ["GET /v1.0/**"]`,
		"methods": `methods: [GET]`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string { return exposing(s, text) + "    " + rule + "\n" })
			stdout, stderr, code := s.command(t, "check")
			require.Equal(t, 0, code)
			require.Regexp(t, `^ok: .*\n$`, stdout)
			require.Equal(t, "note: integrations.graph.expose_token: "+unboundText+"\n", stderr)
		})
	}
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string { return exposing(s, text) + "    methods: [GET]\n" })
	r := s.start(t)
	r.logged(t, unboundText)
	require.Contains(t, r.stderr.String(), `"integrations":["graph"]`)

	s.write(t, exposing(s, s.text())+"    methods: [POST]\n")
	require.Eventually(t, func() bool { return strings.Count(r.stderr.String(), unboundText) == 2 }, patience, pollTime)

	for why, switchOff := range map[string]*strings.Replacer{
		"nobody may read":          strings.NewReplacer("may_read_tokens: true", "may_read_tokens: false"),
		"there is nothing to read": strings.NewReplacer("expose_token: true", "expose_token: false"),
	} {
		s.write(t, switchOff.Replace(exposing(s, s.text()))+"    methods: [GET]\n")
		_, stderr, code := s.command(t, "check")
		require.Equal(t, 0, code)
		require.Empty(t, stderr, why)
	}
}

func TestCheckRefusesACallerWithRulesThatMayReadTokens(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		return strings.Replace(exposing(s, text), "may_read_tokens: true", `may_read_tokens: true, allow: ["GET /**"]`, 1)
	})
	stdout, _, code := s.command(t, "check")
	require.Equal(t, 1, code)
	require.Regexp(t, `^bifrost\.yaml:\d+: callers\[0\]\.may_read_tokens: \S.*\n$`, stdout)
}
