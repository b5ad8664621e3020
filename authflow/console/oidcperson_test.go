package console_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
)

func TestWhoMaySignIn(t *testing.T) {
	emails := func(list ...string) console.Rule { return console.Rule{Emails: list} }
	domains := func(list ...string) console.Rule { return console.Rule{Domains: list} }
	groups := func(list ...string) console.Rule { return console.Rule{Groups: list} }
	for name, tc := range map[string]struct {
		claims, userinfo map[string]any
		rule             console.Rule
		trust            bool
		in               bool
	}{
		"by address":                                      {rule: emails("bob@example.com", "alice@example.com"), in: true},
		"by address, in other letters":                    {claims: claims{"email": "ALICE@Example.COM"}, rule: emails("Alice@example.com"), in: true},
		"by another address":                              {rule: emails("bob@example.com")},
		"by domain":                                       {rule: domains("example.com"), in: true},
		"by a domain's sub-domain":                        {claims: claims{"email": "alice@sub.example.com"}, rule: domains("example.com")},
		"by a domain that ends like it":                   {claims: claims{"email": "alice@badexample.com"}, rule: domains("example.com")},
		"by a domain with more behind":                    {claims: claims{"email": "alice@example.com.evil.example"}, rule: domains("example.com")},
		"by a domain before the last @":                   {claims: claims{"email": "alice@example.com@evil.example"}, rule: domains("example.com")},
		"by the domain after the last @":                  {claims: claims{"email": `"x@evil.example"@example.com`}, rule: domains("example.com"), in: true},
		"by no domain":                                    {claims: claims{"email": "alice@"}, rule: domains("example.com")},
		"by a domain in letters that fold":                {claims: claims{"email": "alice@examp\u212ae.com"}, rule: domains("exampke.com")},
		"by an address that is not ASCII":                 {claims: claims{"email": "alic\u0435@example.com"}, rule: domains("example.com")},
		"by an address with a space":                      {claims: claims{"email": "x alice@example.com"}, rule: domains("example.com")},
		"by a list of addresses":                          {claims: claims{"email": []string{"alice@example.com"}}, rule: domains("example.com")},
		"not verified":                                    {claims: claims{"email_verified": false}, rule: emails("alice@example.com")},
		"nothing said of verification":                    {claims: claims{"email_verified": nil}, rule: emails("alice@example.com")},
		"verified, as text":                               {claims: claims{"email_verified": "true"}, rule: emails("alice@example.com"), in: true},
		"verified, as a number":                           {claims: claims{"email_verified": 1}, rule: emails("alice@example.com")},
		"not verified, but trusted":                       {claims: claims{"email_verified": nil}, rule: emails("alice@example.com"), trust: true, in: true},
		"by group":                                        {rule: groups("bifrost-operators"), in: true},
		"by group, in other letters":                      {rule: groups("Bifrost-Operators")},
		"by one group that is a text":                     {claims: claims{"groups": "staff"}, rule: groups("staff"), in: true},
		"by part of a group":                              {claims: claims{"groups": "staff,admins"}, rule: groups("staff")},
		"by group without an address":                     {claims: claims{"email": nil}, rule: groups("staff"), in: true},
		"by a group that userinfo tells":                  {claims: claims{"groups": nil}, userinfo: claims{"groups": []string{"staff"}}, rule: groups("staff"), in: true},
		"by a group that userinfo adds":                   {userinfo: claims{"groups": []string{"admins"}}, claims: claims{"email": nil}, rule: groups("admins")},
		"by an address that userinfo tells":               {claims: claims{"email": nil, "email_verified": nil}, userinfo: claims{"email": "alice@example.com", "email_verified": true}, rule: emails("alice@example.com"), in: true},
		"by an address that userinfo verifies":            {claims: claims{"email_verified": nil, "groups": nil}, userinfo: claims{"email": "other@example.com", "email_verified": true, "groups": []string{"staff"}}, rule: console.Rule{Emails: []string{"alice@example.com"}, Groups: []string{"staff"}}},
		"by userinfo's address, verified by the ID token": {claims: claims{"email": nil}, userinfo: claims{"email": "alice@example.com"}, rule: emails("alice@example.com")},
		"by a claim":                                      {claims: claims{"tid": "contoso"}, rule: console.Rule{Claims: map[string][]string{"tid": {"x", "contoso"}}}, in: true},
		"by a claim that is a list":                       {claims: claims{"roles": []string{"a", "b"}}, rule: console.Rule{Claims: map[string][]string{"roles": {"b"}}}, in: true},
		"by a claim that is a number":                     {claims: claims{"level": 12345678901234567}, rule: console.Rule{Claims: map[string][]string{"level": {"12345678901234567"}}}, in: true},
		"by a claim that is true":                         {claims: claims{"admin": true}, rule: console.Rule{Claims: map[string][]string{"admin": {"true"}}}, in: true},
		"by a claim that is an object":                    {claims: claims{"realm": claims{"a": "b"}}, rule: console.Rule{Claims: map[string][]string{"realm": {"b", "", "a"}}}},
		"by the address as a claim":                       {rule: console.Rule{Claims: map[string][]string{"email": {"alice@example.com"}}}, in: true},
		"by the address as a claim, not verified":         {claims: claims{"email_verified": false}, rule: console.Rule{Claims: map[string][]string{"email": {"alice@example.com"}}}},
		"by the address as a claim, but trusted":          {claims: claims{"email_verified": nil}, rule: console.Rule{Claims: map[string][]string{"email": {"alice@example.com"}}}, trust: true, in: true},
		"by a claim that is not there":                    {rule: console.Rule{Claims: map[string][]string{"tid": {"", "null"}}}},
		"by two claims of which one is":                   {claims: claims{"a": "1"}, rule: console.Rule{Claims: map[string][]string{"a": {"1"}, "b": {"2"}}}},
		"by a domain, in another group":                   {rule: console.Rule{Domains: []string{"example.com"}, Groups: []string{"admins"}}},
		"by a group, of another domain":                   {rule: console.Rule{Domains: []string{"example.org"}, Groups: []string{"staff"}}},
		"by an address, of other domains":                 {rule: console.Rule{Emails: []string{"alice@example.com"}, Domains: []string{"example.org"}}, in: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			for claim, value := range tc.claims {
				p.claims[claim] = value
			}
			if tc.userinfo != nil {
				p.userinfo = tc.userinfo
				p.userinfo["sub"] = "248289761001"
			}
			s := newSSOSite(t, p, rules(tc.rule), func(cfg *console.Config) { cfg.OIDC.TrustEmail = tc.trust })
			w := s.sso(p)
			if tc.in {
				require.Equal(t, http.StatusSeeOther, w.Code, s.log.String())
				require.Contains(t, s.get("/integrations").Body.String(), "Signed in as")
			} else {
				s.requireNobody(w, http.StatusForbidden)
			}
		})
	}
}

type claims = map[string]any

func TestTheFirstRuleThatLetsSomebodyInGivesTheRights(t *testing.T) {
	p := newIDP(t)
	s := newSSOSite(t, p, rules(
		console.Rule{Groups: []string{"admins"}},
		console.Rule{Groups: []string{"staff"}, Rights: console.Rights{ReadOnly: true, Integrations: []string{"Private"}}},
		console.Rule{Domains: []string{"example.com"}},
	))
	s.sso(p)
	page := s.get("/integrations").Body.String()
	require.Contains(t, page, ">Viewer<")
	require.Contains(t, page, "Private")
	require.NotContains(t, page, "Microsoft_Graph")
}

func TestSomebodyWhomNoRuleLetsInLearnsWhoHeIsAndWhomToAsk(t *testing.T) {
	p := newIDP(t)
	p.claims["email"] = `bob<script>@example.com`
	s := newSSOSite(t, p)
	w := s.sso(p)
	s.requireNobody(w, http.StatusForbidden)
	page := w.Body.String()
	require.Contains(t, page, "bob&lt;script&gt;@example.com")
	require.Contains(t, page, "ask Ada &lt;ada@example.com&gt;.")
	require.NotContains(t, page, "<script>")
	require.Contains(t, page, `name="again" value="1"`, "or the provider would sign the same account in again")
	require.Contains(t, w.Header().Get("Content-Security-Policy"), p.URL)
	require.Contains(t, s.log.String(), `"action":"sign_in_failed","operator":"bob<script>@example.com","outcome":"operator_forbidden"`)

	p.claims["email"], p.claims["email_verified"] = "alice@example.com", false
	w = s.sso(p)
	s.requireNobody(w, http.StatusForbidden)
	require.Contains(t, w.Body.String(), "sub:248289761001")
	require.Contains(t, w.Body.String(), "has not verified your address alice@example.com")
}

func TestTheNamesOfThoseWhoSignInAtTheProvider(t *testing.T) {
	for name, tc := range map[string]struct {
		claims claims
		want   string
	}{
		"a verified address":              {claims{}, "alice@example.com"},
		"an address in other letters":     {claims{"email": "Alice@Example.com"}, "alice@example.com"},
		"an address that is not verified": {claims{"email_verified": false}, "sub:248289761001"},
		"no address":                      {claims{"email": nil}, "sub:248289761001"},
		"an id like an address":           {claims{"email": nil, "sub": "alice@example.com"}, "sub:alice@example.com"},
		"an id like an operator's name":   {claims{"email": nil, "sub": "ops"}, "sub:ops"},
		"an address like a name":          {claims{"email": "ops"}, "sub:248289761001"},
		"an operator's own name":          {claims{"email": "boss@example.com"}, "boss@example.com (OIDC)"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			for claim, value := range tc.claims {
				p.claims[claim] = value
			}
			s := newSSOSite(t, p, rules(console.Rule{Groups: []string{"staff"}}), func(cfg *console.Config) {
				cfg.Operators = append(cfg.Operators, console.Operator{Name: "Boss@example.com", Token: func() string { return "CANARY-boss" }})
			})
			s.sso(p)
			require.Contains(t, s.get("/integrations").Body.String(), "Signed in as <strong>"+tc.want+"</strong>")
		})
	}
}
