package console_test

import (
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

var screenLink = regexp.MustCompile(`(?i)\b(?:href|src|action|formaction)\s*=\s*"([^"]*)"`)

// Signing in and every action lead back to the screen, with the view that its page had, and to no address that a request names. Of
// the consent's own steps, authflow has the test.
func TestC13TheScreenLeadsNowhereElse(t *testing.T) {
	s := newSite(t)
	s.broker.refresh = func(slot tokenstore.Slot) (authflow.Connection, error) { return authflow.Connection{Slot: slot}, nil }
	s.broker.disconnect = func(tokenstore.Slot, string) error { return nil }
	for _, target := range []string{
		"https://evil.test", "//evil.test", "///evil.test", `/\evil.test`, `\\evil.test`, "https:evil.test", "/%09/evil.test", "/\t/evil.test", "http://good@evil.test",
		"https://bifrost.example.com.evil.test", "https://bifrost.example.com@evil.test", "javascript:alert('evil')", "data:text/html,evil", "/../..//evil.test",
		"%2f%2fevil.test", "?q=a#//evil.test", "q=a&return_to=//evil.test", "q=a\r\nLocation: //evil.test", "integration=//evil.test&page=//evil.test&show=//evil.test",
	} {
		s.cookies = map[string]string{}
		planted := url.Values{}
		for _, name := range []string{"return_to", "redirect", "next", "rd", "url", "view", "q", "integration", "page", "show", "done", "name", "org", "home", "continue"} {
			planted.Set(name, target)
		}
		leads := func(w *httptest.ResponseRecorder) {
			t.Helper()
			to := w.Header().Get("Location")
			require.Regexp(t, `^(/integrations(\?[^/\\]*)?)?$`, to, "nothing but a query of ours, escaped")
			require.Empty(t, w.Header().Get("Refresh"))
			require.Empty(t, w.Header().Get("Evil"))
			for _, found := range screenLink.FindAllStringSubmatch(w.Body.String(), -1) {
				require.Regexp(t, `^(/[a-z][^\\]*|data:image/svg\+xml,.*|/)$`, html.UnescapeString(found[1]))
			}
		}
		leads(s.get("/integrations?" + planted.Encode()))
		leads(s.post("/integrations/sign-in?"+planted.Encode(), "token", "CANARY-wrong", "view", target, "return_to", target))
		w := s.post("/integrations/sign-in?"+planted.Encode(), "token", operatorToken, "view", target, "return_to", target, "next", target)
		require.Equal(t, http.StatusSeeOther, w.Code)
		leads(w)
		leads(s.get("/integrations?" + planted.Encode()))
		leads(s.get("/?" + planted.Encode()))
		leads(s.get("/integrations/Microsoft_Graph/disconnect?org=acme&view=" + url.QueryEscape(target) + "&" + strings.ReplaceAll(planted.Encode(), "org=", "x=")))
		for _, action := range []string{"Microsoft_Graph/refresh", "Microsoft_Graph/disconnect"} {
			w := s.post("/integrations/"+action+"?"+planted.Encode(), "org", "acme", "view", target, "return_to", target)
			require.Equal(t, http.StatusSeeOther, w.Code, action)
			leads(w)
		}
		leads(s.post("/integrations/sign-out?"+planted.Encode(), "view", target, "next", target))
	}
}
