package authflowtest

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// serveToken is the token endpoint: it takes the POST down, misbehaves as planned, and answers.
func (p *Provider) serveToken(w http.ResponseWriter, r *http.Request, tenant string) {
	post, ok := readPost(w, r, tenant)
	if !ok {
		return
	}
	b := p.arrive(post)
	defer p.leave()

	p.wait(b.Before, b.HoldBefore)
	if b.DropBefore {
		panic(http.ErrAbortHandler)
	}
	answer := b.Instead
	if answer == nil {
		answer = p.process(post, b)
		if b.Rewrite != nil {
			b.Rewrite(answer)
		}
	}
	p.wait(b.After, b.HoldAfter)
	if b.DropAfter {
		panic(http.ErrAbortHandler)
	}
	answer.write(w, b.Cut)
}

// readPost reads the form. What is not a POST of a form is refused before anything is counted as a token request.
func readPost(w http.ResponseWriter, r *http.Request, tenant string) (Post, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		http.Error(w, "POST a form", http.StatusMethodNotAllowed)
		return Post{}, false
	}
	return Post{
		GrantType: r.PostForm.Get("grant_type"), Code: r.PostForm.Get("code"), RefreshToken: r.PostForm.Get("refresh_token"),
		Form: r.PostForm, Header: r.Header, Query: r.URL.Query(), Tenant: tenant, Time: time.Now(),
	}, true
}

// process does what the request asks, as one step.
func (p *Provider) process(post Post, b Behaviour) *Answer {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, values := range post.Form {
		if len(values) > 1 {
			return OAuthError(http.StatusBadRequest, "invalid_request").Instead // RFC 6749 section 3.2
		}
	}
	if !p.authenticLocked(post.Form, post.Header) {
		return OAuthError(http.StatusUnauthorized, "invalid_client").Instead
	}
	switch post.GrantType {
	case "authorization_code":
		return p.redeemCodeLocked(post, b)
	case "refresh_token":
		return p.redeemRefreshLocked(post, b)
	case "client_credentials":
		return p.mintLocked(post, b)
	}
	return OAuthError(http.StatusBadRequest, "unsupported_grant_type").Instead
}

// authenticLocked checks the client by the one configured method (RFC 6749 section 2.3.1). Credentials sent in more than one
// way are refused.
func (p *Provider) authenticLocked(form url.Values, header http.Header) bool {
	authorization, id, secret := header.Get("Authorization"), form.Get("client_id"), form.Get("client_secret")
	switch p.cfg.ClientAuth {
	case "basic":
		user := url.QueryEscape(p.cfg.ClientID)
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+url.QueryEscape(p.cfg.ClientSecret)))
		return authorization == want && secret == ""
	case "none":
		return authorization == "" && id == p.cfg.ClientID && secret == ""
	}
	return authorization == "" && id == p.cfg.ClientID && secret == p.cfg.ClientSecret
}

// redeemCodeLocked exchanges a code (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
func (p *Provider) redeemCodeLocked(post Post, b Behaviour) *Answer {
	now := time.Now()
	code := p.ledger.find(Code, post.Code)
	switch {
	case code == nil:
		return OAuthError(http.StatusBadRequest, "invalid_grant").Instead
	case !code.spent.IsZero():
		p.ledger.reused(code, now, 0)
		return OAuthError(http.StatusBadRequest, "invalid_grant").Instead
	}
	code.spent = now // a code that was presented wrongly is spent too
	if !now.Before(code.expires) || code.grant.tenant != post.Tenant ||
		post.Form.Get("redirect_uri") != code.authorize.redirectURI || !code.authorize.verifies(post.Form.Get("code_verifier")) {
		return OAuthError(http.StatusBadRequest, "invalid_grant").Instead
	}
	return p.issueLocked(code.grant, !p.cfg.NoRefresh, b)
}

// redeemRefreshLocked refreshes (RFC 6749 section 6), and revokes the grant where a token comes again that must not.
func (p *Provider) redeemRefreshLocked(post Post, b Behaviour) *Answer {
	now := time.Now()
	old := p.ledger.find(Renew, post.RefreshToken)
	switch {
	case old == nil || old.grant.revoked || old.revoked || old.grant.tenant != post.Tenant:
		return OAuthError(http.StatusBadRequest, "invalid_grant").Instead
	case !old.alive(now, p.graceLocked()):
		p.ledger.reused(old, now, p.graceLocked())
		return OAuthError(http.StatusBadRequest, "invalid_grant").Instead
	}
	if old.spent.IsZero() {
		old.spent = now
	}
	if p.cfg.AccessDies {
		p.ledger.killAccess(old.grant)
	}
	fresh := p.cfg.Refresh != Reusable || !p.cfg.KeepRefresh
	return p.issueLocked(old.grant, fresh, b)
}

// graceLocked is how long a used refresh token stays usable.
func (p *Provider) graceLocked() time.Duration {
	switch p.cfg.Refresh {
	case OneTime:
		return 0
	case Rotating:
		return p.cfg.Grace
	}
	return 100 * 365 * 24 * time.Hour // Reusable: in effect for ever
}

// mintLocked issues a token to the client itself (RFC 6749 section 4.4).
func (p *Provider) mintLocked(post Post, b Behaviour) *Answer {
	scopes := strings.Fields(post.Form.Get("scope"))
	if p.cfg.Scopes != nil {
		scopes = p.cfg.Scopes
	}
	g := p.ledger.newGrant("client:"+p.cfg.ClientID, p.cfg.ClientID, post.Tenant, scopes)
	return p.issueLocked(g, false, b)
}

// issueLocked makes the next generation of the grant's tokens and the answer that carries them (RFC 6749 section 5.1).
func (p *Provider) issueLocked(g *grant, withRefresh bool, b Behaviour) *Answer {
	life := p.cfg.Lifetime
	members := map[string]any{"token_type": p.cfg.TokenType, "scope": strings.Join(g.scopes, " "), "expires_in": int64(life.Seconds())}
	if life < 0 {
		life = time.Hour
		delete(members, "expires_in")
	}
	g.generation++
	members["access_token"] = p.ledger.issue(g, Access, canary(Access), time.Now().Add(life)).value
	if withRefresh {
		value := canary(Renew)
		if b.NumericRefresh {
			value = digits()
		}
		p.ledger.issue(g, Renew, value, time.Time{})
		members["refresh_token"] = value
		if b.NumericRefresh {
			members["refresh_token"] = json.Number(value)
		}
	}
	account := p.account(g.user)
	maps.Copy(members, account.Members)
	if p.cfg.IDToken {
		members["id_token"] = idToken(defaulted(p.cfg.Issuer, p.BaseURL), g, account.Claims)
	}
	return JSON(http.StatusOK, members)
}

func (p *Provider) account(user string) Account {
	if p.cfg.Account == nil {
		return Account{}
	}
	return p.cfg.Account(user)
}

// idToken returns an unsigned ID token: enough for a client that has it from the token endpoint itself.
func idToken(issuer string, g *grant, over map[string]any) string {
	now := time.Now()
	claims := map[string]any{"iss": issuer, "sub": g.user, "aud": g.client, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
	if g.nonce != "" && g.generation == 1 {
		claims["nonce"] = g.nonce
	}
	for name, value := range over {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	payload, _ := json.Marshal(claims) // what tests put there marshals
	part := base64.RawURLEncoding.EncodeToString
	return strings.Join([]string{part([]byte(`{"alg":"none"}`)), part(payload), ""}, ".")
}

// serveRevoke is the revocation endpoint (RFC 7009): an unknown token is no error. Revoking a refresh token ends its grant.
func (p *Provider) serveRevoke(w http.ResponseWriter, r *http.Request) {
	post, ok := readPost(w, r, "")
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.revocations = append(p.record.revocations, post)
	if !p.authenticLocked(post.Form, post.Header) {
		OAuthError(http.StatusUnauthorized, "invalid_client").Instead.write(w, false)
		return
	}
	if t := p.ledger.tokens[post.Form.Get("token")]; t != nil && slices.Contains([]Kind{Access, Renew}, t.kind) {
		t.revoked = true
		t.grant.revoked = t.grant.revoked || t.kind == Renew
	}
	w.WriteHeader(http.StatusOK)
}
