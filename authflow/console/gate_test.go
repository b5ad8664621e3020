package console_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestTheOpenModeIsForThisMachineAlone(t *testing.T) {
	for _, tc := range []struct {
		name, host, site string
		status           int
	}{
		{"an address bar", "127.0.0.1:8081", "none", http.StatusOK},
		{"a program", "127.0.0.1:8081", "", http.StatusOK},
		{"our own page", "localhost:8081", "same-origin", http.StatusOK},
		{"IPv6", "[::1]:8081", "none", http.StatusOK},
		{"another loopback address", "127.1.2.3", "none", http.StatusOK},
		{"the public URL", "bifrost.example.com", "none", http.StatusOK},
		{"the public URL in capitals", "BIFROST.example.com:443", "none", http.StatusOK},
		{"another site's page", "127.0.0.1:8081", "cross-site", http.StatusForbidden},
		{"a rebound name", "evil.example", "none", http.StatusForbidden},
		{"a rebound name, same-origin", "evil.example:8081", "same-origin", http.StatusForbidden},
		{"a name that begins like ours", "localhost.evil.example", "none", http.StatusForbidden},
		{"another address", "192.0.2.1:8081", "none", http.StatusForbidden},
		{"no host", "", "none", http.StatusForbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t, openMode, func(cfg *console.Config) { cfg.PublicURL = "https://bifrost.example.com" })
			for _, path := range []string{"/integrations", "/api/v1/integrations"} {
				r := s.request(http.MethodGet, path, "")
				r.Host = tc.host
				r.Header.Set("Sec-Fetch-Site", tc.site)
				w := s.do(r)
				require.Equal(t, tc.status, w.Code, path)
				if tc.status == http.StatusForbidden {
					require.NotContains(t, w.Body.String(), "Microsoft_Graph")
				}
			}
		})
	}
}

func TestTheOpenModeSaysSo(t *testing.T) {
	require.Contains(t, newSite(t, openMode).get("/integrations").Body.String(), "Open to everyone on this machine.")
	require.NotContains(t, newSite(t).signIn().get("/integrations").Body.String(), "Open to everyone")
}

func TestAForeignHostIsNoMatterWithOperators(t *testing.T) {
	s := newSite(t).signIn()
	r := s.request(http.MethodGet, "/integrations", "")
	r.Host = "behind-a-front-end:8081"
	r.Header.Set("Sec-Fetch-Site", "cross-site") // arriving by a link
	require.Contains(t, s.do(r).Body.String(), "Microsoft_Graph")
}

// Every way of sending a form, with and without the form token of the page.
func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name         string
		site, origin string
		token        bool
		done         bool
	}{
		{"our page", "same-origin", "null", false, true},
		{"a program", "", "", false, true},
		{"our page in an old browser that says its origin", "", "ours", false, true},
		{"our page in an old browser", "", "null", true, true},
		{"a page without the form token in an old browser", "", "null", false, false},
		{"another site", "cross-site", "https://evil.example", false, false},
		{"another site that hides its origin", "cross-site", "null", true, false},
		{"a sibling", "same-site", "https://evil.example.com", true, false},
		{"another site in an old browser", "", "https://evil.example", true, false},
	} {
		for mode, change := range map[string]func(*console.Config){"operators": func(*console.Config) {}, "open": openMode} {
			t.Run(tc.name+", "+mode, func(t *testing.T) {
				disconnected := 0
				s := newSite(t, change)
				s.broker.disconnect = func(tokenstore.Slot, string) error { disconnected++; return nil }
				if mode == "operators" {
					s.signIn()
				}
				fields := []string{"org", "acme"}
				if page := s.get("/integrations").Body.String(); tc.token {
					fields = append(fields, "form", formToken(t, page))
				}
				r := s.form("/integrations/Microsoft_Graph/disconnect", fields...)
				r.Header.Del("Sec-Fetch-Site")
				if tc.site != "" {
					r.Header.Set("Sec-Fetch-Site", tc.site)
				}
				switch tc.origin {
				case "":
				case "ours":
					r.Header.Set("Origin", s.origin)
				default:
					r.Header.Set("Origin", tc.origin)
				}
				w := s.do(r)
				if tc.done {
					require.Equal(t, http.StatusSeeOther, w.Code)
					require.Equal(t, 1, disconnected)
				} else {
					require.Equal(t, http.StatusForbidden, w.Code)
					require.Zero(t, disconnected)
				}
			})
		}
	}
}

func TestAFormTokenIsGoodForItsOwnCookieAlone(t *testing.T) {
	mine, theirs := newSite(t, openMode), newSite(t, openMode)
	theirs.broker.disconnect = func(tokenstore.Slot, string) error { t.Error("disconnected"); return nil }
	token := formToken(t, mine.get("/integrations").Body.String())
	theirs.get("/integrations")

	r := theirs.form("/integrations/Microsoft_Graph/disconnect", "org", "acme", "form", token)
	r.Header.Del("Sec-Fetch-Site")
	r.Header.Set("Origin", "null")
	require.Equal(t, http.StatusForbidden, theirs.do(r).Code)
}

// A key of no bytes is known to everybody.
func TestAFormTokenNeedsACookie(t *testing.T) {
	s := newSite(t, openMode)
	s.broker.disconnect = func(tokenstore.Slot, string) error { t.Error("disconnected"); return nil }
	mac := hmac.New(sha256.New, nil)
	mac.Write([]byte("bifrost form"))
	r := s.form("/integrations/Microsoft_Graph/disconnect", "org", "acme", "form", base64.RawURLEncoding.EncodeToString(mac.Sum(nil)))
	r.Header.Del("Sec-Fetch-Site")
	r.Header.Set("Origin", "null")
	require.Equal(t, http.StatusForbidden, s.do(r).Code)
}

func TestASignInFromAnotherSiteIsRefused(t *testing.T) {
	s := newSite(t)
	r := s.form("/integrations/sign-in", "token", operatorToken)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, s.do(r).Code)
	require.Empty(t, s.shelf.values)
}

// The front end may use another name towards us than browsers see.
func TestTheSignInWorksBehindAFrontEnd(t *testing.T) {
	s := newSite(t)
	r := s.form("/integrations/sign-in", "token", operatorToken)
	r.Host = "10.0.0.7:8081"
	r.Header.Del("Sec-Fetch-Site")
	r.Header.Set("Origin", "https://bifrost.example.com")
	require.Equal(t, http.StatusSeeOther, s.do(r).Code)
}

// A path that is not clean is no address of ours: a redirect would be stored, and would miss the prefix of the public URL.
func TestUncleanPathsAreNotRedirected(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"//evil.example/..//integrations", "/integrations/../integrations", "/api//v1/integrations", "/integrations/"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		res := s.do(r)
		require.Equal(t, http.StatusNotFound, res.Code, path)
		require.Equal(t, "no-store", res.Header().Get("Cache-Control"), path)
	}
}
