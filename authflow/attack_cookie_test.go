package authflow

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// The cookie that binds a consent to its browser can neither be planted from a sibling domain nor be sent over plain http, and
// scripts do not see it.
func TestC15TheCookieIsOfThisHostAlone(t *testing.T) {
	g := newGround(t, consentSetup{})
	attacker, victim := g.newBrowser(), g.newBrowser()
	start := attacker.do(http.MethodPost, g.linkFor(mallory), nil)
	require.Equal(t, http.StatusSeeOther, start.status)
	set, err := http.ParseSetCookie(start.header.Get("Set-Cookie"))
	require.NoError(t, err)
	require.Regexp(t, `^__Host-bifrost-consent-[0-9a-f]{16}=[A-Za-z0-9_-]{43}; Path=/; Max-Age=600; HttpOnly; Secure; SameSite=Lax$`, set.Raw)
	state := mustParse(t, start.location).Query().Get("state")
	require.NotContains(t, set.Raw, state)
	require.Len(t, attacker.cookies(), 1)

	// A sibling domain plants the attacker's cookie, so that the victim's browser would end the attacker's consent.
	callback := g.visit(victim, start.location)
	before := g.state()
	sibling := mustParse(t, "https://evil.example.com/")
	for _, planted := range []http.Cookie{
		{Name: set.Name, Value: set.Value, Path: "/", Secure: true, Domain: "example.com"},
		{Name: set.Name, Value: set.Value, Path: "/", Domain: "example.com"},
		{Name: strings.TrimPrefix(set.Name, "__Host-"), Value: set.Value, Path: "/", Domain: "example.com"},
		{Name: strings.Replace(set.Name, "__Host-", "__Secure-", 1), Value: set.Value, Path: "/", Secure: true, Domain: "example.com"},
		{Name: strings.ToLower(set.Name), Value: set.Value, Path: "/", Secure: true, Domain: "example.com"},
	} {
		victim.client.Jar.SetCookies(sibling, []*http.Cookie{&planted})
		g.refused(victim, callback, http.StatusBadRequest, notHere)
	}
	require.NotEmpty(t, victim.cookies(), "names without the prefix arrive, and count for nothing")
	g.requireUntouched(before)
	require.Nil(t, g.stored(mallory))

	// A cookie of the right name beside the real one, wherever it comes from, keeps nobody from his own consent.
	require.Equal(t, http.StatusSeeOther, attacker.do(http.MethodGet, callback, nil, "Cookie", set.Name+"=planted").status)
}

// Browsers ignore the removal of a __Host- cookie unless it is as well-formed as its setting was: with a jar that does so too,
// no ended consent leaves its cookie behind, and what has not ended keeps its own.
func TestC17EveryEndedConsentTakesItsCookieAlong(t *testing.T) {
	const issuer = "https://idp.example"
	g := newGround(t, consentSetup{
		provider: authflowtest.Config{Issuer: issuer},
		change:   func(in *Integration) { in.Issuer = issuer },
	})
	link := g.linkFor(mallory)
	for name, end := range map[string]struct {
		spoil  func(callback string) string
		status int
		goes   bool
	}{
		"connected":       {func(c string) string { return c }, http.StatusSeeOther, true},
		"denied":          {func(c string) string { return with(t, c, "code", "", "error", "access_denied") }, http.StatusForbidden, true},
		"failed":          {func(c string) string { return with(t, c, "code", "CANARY-code") }, http.StatusBadGateway, true},
		"another issuer":  {func(c string) string { return with(t, c, "iss", issuer+"/") }, http.StatusBadRequest, true},
		"a faulty answer": {func(c string) string { return c + "&state=x" }, http.StatusBadRequest, false},
		"no code":         {func(c string) string { return with(t, c, "code", "") }, http.StatusBadRequest, false},
	} {
		t.Run(name, func(t *testing.T) {
			link := link
			if end.status == http.StatusSeeOther {
				link = g.linkFor(globex) // it is spent
			}
			b := g.newBrowser()
			start := b.do(http.MethodPost, link, nil)
			set, err := http.ParseSetCookie(start.header.Get("Set-Cookie"))
			require.NoError(t, err)
			require.Len(t, b.cookies(), 1)
			got := b.get(end.spoil(g.visit(b, start.location)))
			require.Equal(t, end.status, got.status, got.body)
			if !end.goes {
				require.Empty(t, got.header.Get("Set-Cookie"))
				require.Len(t, b.cookies(), 1)
				return
			}
			require.Empty(t, b.cookies())
			require.Len(t, got.header.Values("Set-Cookie"), 1)
			removed, err := http.ParseSetCookie(got.header.Get("Set-Cookie"))
			require.NoError(t, err)
			require.Negative(t, removed.MaxAge)
			removed.Value, removed.MaxAge, removed.Raw = set.Value, set.MaxAge, set.Raw
			require.Equal(t, set, removed, "identical but for value and age")
		})
	}

	// The sixth consent in one browser makes the oldest go, which is as much of a removal.
	b := g.newBrowser()
	for n := range 8 {
		b.click(link)
		require.Len(t, b.cookies(), min(n+1, maxConsents))
	}
}
