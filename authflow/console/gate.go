package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// open says that nobody has to sign in: whoever reaches this machine's own address may do everything.
func (c *console) open() bool { return len(c.operators) == 0 && c.oidc == nil }

// admits is the gate of the open mode: a web page must not use the screen through a visitor's own machine, whether it sends
// requests from another site or makes its own name resolve to our address (DNS rebinding).
func (c *console) admits(r *http.Request) bool {
	return c.isOurHost(r.Host) && r.Header.Get("Sec-Fetch-Site") != "cross-site"
}

// isOurHost says whether a Host header names this machine or the public URL.
func (c *console) isOurHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") || strings.EqualFold(name, c.public.Hostname()) {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// sameOrigin says whether a request that may change something comes from a page of ours, or from no browser at all. Our pages
// say `Referrer-Policy: no-referrer`, which makes browsers send `Origin: null` with their forms; a browser that sends no
// Sec-Fetch-Site beside it is believed only with the form token that our page gave to its cookie.
func (c *console) sameOrigin(r *http.Request) bool {
	if c.cross.Check(r) == nil {
		return true
	}
	if r.Header.Get("Sec-Fetch-Site") != "" || r.Header.Get("Origin") != "null" {
		return false
	}
	secret := c.formSecret(r)
	given := r.PostFormValue("form")
	return secret != "" && subtle.ConstantTimeCompare([]byte(given), []byte(formToken(secret))) == 1
}

// formSecret returns what the browser's form token is bound to: its session, else its form cookie, else nothing.
func (c *console) formSecret(r *http.Request) string {
	for _, name := range []string{sessionCookie, formCookie} {
		if cookie, err := r.Cookie(c.cookieName(name)); err == nil && cookie.Value != "" {
			return cookie.Value
		}
	}
	return ""
}

// giveForm returns the form token for a page, and gives the browser a form cookie if it has nothing to bind one to.
func (c *console) giveForm(w http.ResponseWriter, r *http.Request) string {
	secret := c.formSecret(r)
	if secret == "" {
		secret = rand.Text()
		http.SetCookie(w, c.cookie(formCookie, secret, 0))
	}
	return formToken(secret)
}

// formToken is derived from the cookie so that nothing has to be stored, and so that the page does not contain the cookie.
func formToken(secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("bifrost form"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// pathOf returns the path of one of an integration's actions, as browsers see it.
func (c *console) pathOf(integration, action string) string {
	return c.path("/integrations/" + url.PathEscape(integration) + "/" + action)
}
