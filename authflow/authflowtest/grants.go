package authflowtest

import (
	"encoding/json"
	"time"
)

// Issued is a grant's tokens, as a client would have them.
type Issued struct {
	Grant         string
	Access        string
	Refresh       string
	AccessExpires time.Time
	Scopes        []string
}

// Issue makes a grant as if user had consented, without the detour through a browser.
func (p *Provider) Issue(user string, scopes ...string) Issued { return p.IssueAt("", user, scopes...) }

// IssueAt is Issue at a tenant, "/contoso".
func (p *Provider) IssueAt(tenant, user string, scopes ...string) Issued {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.ledger.newGrant(user, p.cfg.ClientID, tenant, scopes)
	p.issueLocked(g, !p.cfg.NoRefresh, Behaviour{})
	return g.issued()
}

// Newest returns the latest tokens of a grant, whether or not the client ever received them.
func (p *Provider) Newest(grant string) (Issued, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.ledger.grants[grant]
	if !ok {
		return Issued{}, false
	}
	return g.issued(), true
}

func (g *grant) issued() Issued {
	i := Issued{Grant: g.id, Scopes: g.scopes}
	if t := g.newest[Access]; t != nil {
		i.Access, i.AccessExpires = t.value, t.expires
	}
	if t := g.newest[Renew]; t != nil {
		i.Refresh = t.value
	}
	return i
}

// Lookup returns what the provider knows of a token or code.
func (p *Provider) Lookup(value string) (Token, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.ledger.tokens[value]
	if !ok {
		return Token{}, false
	}
	return t.public(time.Now(), p.graceOfLocked(t)), true
}

// GrantAlive reports whether the grant exists and has not been revoked.
func (p *Provider) GrantAlive(grant string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.ledger.grants[grant]
	return ok && !g.revoked
}

// RevokeUser ends every grant of a user, as an administrator would.
func (p *Provider) RevokeUser(user string) {
	p.revokeWhere(func(g *grant) bool { return g.user == user })
}

// RevokeGrant ends one grant.
func (p *Provider) RevokeGrant(id string) { p.revokeWhere(func(g *grant) bool { return g.id == id }) }

// RevokeAll ends every grant.
func (p *Provider) RevokeAll() { p.revokeWhere(func(*grant) bool { return true }) }

func (p *Provider) revokeWhere(match func(*grant) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.ledger.grants {
		if match(g) {
			g.revoked = true
		}
	}
}

// KillAccess makes one access token invalid before its time; its grant goes on.
func (p *Provider) KillAccess(value string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.ledger.find(Access, value); t != nil {
		t.revoked = true
	}
}

func (p *Provider) graceOfLocked(t *token) time.Duration {
	if t.kind == Code {
		return 0
	}
	return p.graceLocked()
}

// String names the token without its value.
func (t Token) String() string {
	raw, _ := json.Marshal(map[string]any{"kind": t.Kind, "user": t.User, "generation": t.Generation, "alive": t.Alive}) // plain values
	return string(raw)
}
