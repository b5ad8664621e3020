package authflow

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// elsewhere are the spellings of another site that have got past checks of return addresses.
var elsewhere = []string{
	"https://evil.test", "//evil.test", "///evil.test", `/\evil.test`, `\\evil.test`, "https:evil.test", "https:/evil.test",
	"/%09/evil.test", "/\t/evil.test", "\t//evil.test", "http://good@evil.test", "https://bifrost.example.com.evil.test",
	"https://bifrost.example.com@evil.test", "javascript:alert(1)//evil.test", "data:text/html,evil.test", "/..//evil.test", "%2f%2fevil.test",
	"https://evil.test%00.bifrost.example.com", "//evil。test", "https://bifrost.example.com%2f@evil.test",
}

var linkPattern = regexp.MustCompile(`(?i)(?:href|src|action|content)\s*=\s*"([^"]*)"|url\(([^)]*)\)`)

// requireOursAlone asserts that a page leads nowhere but to us, whatever the query said.
func requireOursAlone(t *testing.T, got seen) {
	t.Helper()
	require.NotContains(t, got.body, "evil", "not even as text")
	require.NotContains(t, got.header.Get("Content-Security-Policy"), "evil")
	require.Empty(t, got.header.Get("Refresh"))
	for _, found := range linkPattern.FindAllStringSubmatch(got.body, -1) {
		to := found[1] + found[2]
		require.Regexp(t, `^(/[a-z]|https://bifrost\.example\.com/|data:image/svg)`, to)
	}
}

// There is no return address to abuse: no parameter of any step chooses where a browser is sent, and neither does a path.
func TestC13NoStepLeadsElsewhere(t *testing.T) {
	g := newGround(t, consentSetup{})
	b := g.newBrowser()
	for _, target := range elsewhere {
		q := url.Values{}
		for _, name := range []string{"return_to", "redirect", "redirect_uri", "redirect_url", "next", "url", "rd", "r", "continue", "goto",
			"back", "view", "home", "RelayState", "post_logout_redirect_uri", "target", "result_url"} {
			q.Set(name, target)
		}
		link := g.linkFor(acme)
		requireOursAlone(t, b.get(link+"&"+q.Encode()))
		form := url.Values{"ticket": {mustParse(t, link).Query().Get("ticket")}}
		for name := range q {
			form.Set(name, target)
		}
		start := b.do(http.MethodPost, link+"&"+q.Encode(), form, "Referer", target, "X-Forwarded-Host", "evil.test")
		require.Equal(t, http.StatusSeeOther, start.status)
		require.True(t, strings.HasPrefix(start.location, g.provider.AuthorizationURL+"?"), start.location)
		require.NotContains(t, start.location, "evil")

		callback := g.visit(b, start.location)
		for _, answer := range []string{callback + "x&code=y&" + q.Encode(), with(t, callback, "state", "") + "&" + q.Encode()} {
			requireOursAlone(t, g.refused(b, answer, http.StatusBadRequest, "This answer cannot be used"))
		}
		denied := with(t, callback, "code", "", "error", target, "error_uri", target) + "&" + q.Encode()
		if printable(target) {
			requireOursAlone(t, g.refused(b, denied, http.StatusForbidden, "Graph was not connected"))
			callback = g.consent(b, link)
		} else {
			requireOursAlone(t, g.refused(b, denied, http.StatusBadRequest, "This answer cannot be used"))
		}
		sent := b.get(callback + "&" + q.Encode())
		require.Equal(t, http.StatusSeeOther, sent.status)
		require.Regexp(t, `^https://bifrost\.example\.com/oauth/connect/Graph/done\?result=[A-Za-z0-9_-]{43}$`, sent.location)
		for _, shown := range []string{sent.location + "&" + q.Encode(), g.public + "/oauth/connect/Graph/done?result=" + url.QueryEscape(target)} {
			page := b.get(shown)
			require.Contains(t, []int{http.StatusOK, http.StatusNotFound}, page.status)
			requireOursAlone(t, page)
		}
	}
	for _, path := range []string{
		"//evil.test/oauth/connect/Graph", "///evil.test/..", `/\evil.test`, "/oauth//evil.test", "/oauth/connect/../../evil.test",
		"/oauth/connect//evil.test", "/oauth/callback/Graph/..//evil.test", "/%2f/evil.test", "/%5cevil.test", "/oauth/connect/%2f%2fevil.test",
		"//evil.test/%2e%2e", "/./\\evil.test", "/oauth/connect/..%2f..%2f%2fevil.test",
	} {
		answer := g.raw("GET " + path + " HTTP/1.1")
		require.Regexp(t, `^HTTP/1\.[01] (400|404) `, answer, path)
		require.NotContains(t, answer, "\r\nLocation: ", path)
	}
}
