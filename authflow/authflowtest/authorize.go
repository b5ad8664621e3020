package authflowtest

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"time"
)

// authorizeRequest is what a code is bound to.
type authorizeRequest struct {
	redirectURI, challenge string
	scopes                 []string
}

// serveAuthorize is the authorization endpoint (RFC 6749 section 4.1.1). Where the redirect URI cannot be trusted the answer
// is a page; every other refusal goes to the client.
func (p *Provider) serveAuthorize(w http.ResponseWriter, r *http.Request, tenant string) {
	if msg := p.badRequest(r.URL.Query()); msg != "" {
		http.Error(w, msg, http.StatusBadRequest)
		return
	}
	if code := p.refusal(r.URL.Query()); code != "" {
		p.Deny(w, r, code)
		return
	}
	user := p.cfg.User
	if p.cfg.Consent != nil {
		var done bool
		if user, done = p.cfg.Consent(w, r); !done {
			return
		}
	}
	p.approve(w, r, tenant, user)
}

// Deny sends the browser back with an OAuth error, such as "access_denied".
func (p *Provider) Deny(w http.ResponseWriter, r *http.Request, code string) {
	q := r.URL.Query()
	if p.badRequest(q) != "" { // never redirect to an address that is not registered
		http.Error(w, "bad authorization request", http.StatusBadRequest)
		return
	}
	p.sendBack(w, r, url.Values{"error": {code}, "error_description": {"CANARY-description <b>" + code + "</b>"}})
}

func (p *Provider) approve(w http.ResponseWriter, r *http.Request, tenant, user string) {
	q := r.URL.Query()
	p.mu.Lock()
	req := authorizeRequest{redirectURI: q.Get("redirect_uri"), challenge: q.Get("code_challenge"), scopes: strings.Fields(q.Get("scope"))}
	if p.cfg.Scopes != nil {
		req.scopes = p.cfg.Scopes
	}
	g := p.ledger.newGrant(user, q.Get("client_id"), tenant, req.scopes)
	g.nonce = q.Get("nonce")
	code := p.ledger.issue(g, Code, canary(Code), time.Now().Add(p.cfg.CodeLifetime))
	code.authorize = req
	p.mu.Unlock()
	answer := url.Values{"code": {code.value}}
	maps.Copy(answer, p.account(user).Callback)
	p.sendBack(w, r, answer)
}

// sendBack redirects to the redirect URI with state and iss added.
func (p *Provider) sendBack(w http.ResponseWriter, r *http.Request, answer url.Values) {
	q := r.URL.Query()
	if state := q.Get("state"); state != "" {
		answer.Set("state", state)
	}
	if p.cfg.Issuer != "" {
		answer.Set("iss", p.cfg.Issuer)
	}
	to, sep := q.Get("redirect_uri"), "?"
	if strings.Contains(to, "?") {
		sep = "&"
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to+sep+answer.Encode(), http.StatusSeeOther)
}

// badRequest says why the browser cannot be sent back; empty: it can.
func (p *Provider) badRequest(q url.Values) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, values := range q {
		if len(values) > 1 {
			return "repeated parameter: " + name
		}
	}
	registered := p.cfg.RedirectURIs
	switch to := q.Get("redirect_uri"); {
	case q.Get("client_id") != p.cfg.ClientID:
		return "unknown client_id"
	case to == "":
		return "no redirect_uri"
	case registered != nil && !slices.Contains(registered, to):
		return "redirect_uri is not registered"
	}
	return ""
}

// refusal returns the OAuth error that the client gets; empty: the request is good.
func (p *Provider) refusal(q url.Values) string {
	challenge := q.Get("code_challenge")
	switch {
	case q.Get("response_type") != "code":
		return "unsupported_response_type"
	case challenge == "" && !p.cfg.NoPKCE:
		return "invalid_request"
	case challenge != "" && (q.Get("code_challenge_method") != "S256" || len(challenge) != 43):
		return "invalid_request"
	}
	return ""
}

// verifies compares a PKCE verifier with the challenge (RFC 7636 section 4.6).
func (a authorizeRequest) verifies(verifier string) bool {
	if a.challenge == "" {
		return verifier == ""
	}
	sum := sha256.Sum256([]byte(verifier))
	return len(verifier) >= 43 && base64.RawURLEncoding.EncodeToString(sum[:]) == a.challenge
}

// Visit plays the browser of somebody who opens an authorization URL and consents (or whatever Consent decides), and returns
// where the provider sends that browser.
func (p *Provider) Visit(authorizationURL string) (*url.URL, error) {
	rec := httptest.NewRecorder()
	p.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, authorizationURL, nil))
	if rec.Code != http.StatusSeeOther {
		return nil, errors.New("authflowtest: no redirect: " + strings.TrimSpace(rec.Body.String()))
	}
	return url.Parse(rec.Header().Get("Location"))
}
