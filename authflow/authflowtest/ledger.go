package authflowtest

import (
	"crypto/rand"
	"strings"
	"time"
)

// Kind is what a token is for.
type Kind string

// The kinds.
const (
	Access Kind = "at"
	Renew  Kind = "rt"
	Code   Kind = "code"
)

// Token is what the provider knows of a token or code that it issued.
type Token struct {
	Kind       Kind
	Value      string
	Grant      string // identifies the consent that it descends from
	User       string // who consented; "client:ID" with client_credentials
	Client     string
	Tenant     string // path in front of the endpoint that issued the grant; usually empty
	Scopes     []string
	Generation int // 1 for the code exchange, plus one with each refresh
	Expires    time.Time
	Alive      bool // neither expired, nor revoked, nor its grant; a spent refresh token is not alive after its grace
}

// Reuse is a code or refresh token that came again when it must not.
type Reuse struct {
	Token Token
	Time  time.Time
}

// ledger is what the provider remembers. Provider.mu guards it.
type ledger struct {
	grants map[string]*grant
	tokens map[string]*token // by value
	reuses []Reuse
}

// grant is one consent; its tokens live and die with it.
type grant struct {
	id, user, client, tenant string
	scopes                   []string
	nonce                    string // of the authorization request, for the first ID token
	generation               int
	revoked                  bool
	newest                   map[Kind]*token
}

type token struct {
	kind       Kind
	value      string
	grant      *grant
	generation int
	expires    time.Time // zero: never
	spent      time.Time // first use of a code or refresh token
	revoked    bool
	authorize  authorizeRequest // of a code
}

func newLedger() ledger {
	return ledger{grants: map[string]*grant{}, tokens: map[string]*token{}}
}

func (l *ledger) newGrant(user, client, tenant string, scopes []string) *grant {
	g := &grant{id: "grant-" + rand.Text(), user: user, client: client, tenant: tenant, scopes: scopes, newest: map[Kind]*token{}}
	l.grants[g.id] = g
	return g
}

// issue makes a token of the grant's present generation.
func (l *ledger) issue(g *grant, kind Kind, value string, expires time.Time) *token {
	t := &token{kind: kind, value: value, grant: g, generation: g.generation, expires: expires}
	l.tokens[value] = t
	g.newest[kind] = t
	return t
}

// find returns the token of that kind and value, or nil.
func (l *ledger) find(kind Kind, value string) *token {
	if t := l.tokens[value]; t != nil && t.kind == kind {
		return t
	}
	return nil
}

// reused notes a reuse and revokes the grant with everything that it issued (RFC 6749 section 4.1.2, RFC 9700 section 4.14.2).
func (l *ledger) reused(t *token, now time.Time, grace time.Duration) {
	l.reuses = append(l.reuses, Reuse{Token: t.public(now, grace), Time: now})
	t.grant.revoked = true
}

// killAccess revokes the grant's access tokens.
func (l *ledger) killAccess(g *grant) {
	for _, t := range l.tokens {
		if t.grant == g && t.kind == Access {
			t.revoked = true
		}
	}
}

func (t *token) alive(now time.Time, grace time.Duration) bool {
	return !t.revoked && !t.grant.revoked &&
		(t.expires.IsZero() || now.Before(t.expires)) &&
		(t.spent.IsZero() || now.Before(t.spent.Add(grace)))
}

func (t *token) public(now time.Time, grace time.Duration) Token {
	return Token{
		Kind: t.kind, Value: t.value, Grant: t.grant.id, User: t.grant.user, Client: t.grant.client, Tenant: t.grant.tenant,
		Scopes: t.grant.scopes, Generation: t.generation, Expires: t.expires, Alive: t.alive(now, grace),
	}
}

// canary returns a recognisable random value: a search for "CANARY" finds every secret that leaked.
func canary(kind Kind) string { return "CANARY-" + string(kind) + "-" + rand.Text() }

// digits returns a random number of 18 digits, for providers whose refresh tokens are numbers.
func digits() string {
	var b strings.Builder
	b.WriteByte('4')
	raw := make([]byte, 17)
	_, _ = rand.Read(raw) // never fails
	for _, c := range raw {
		b.WriteByte('0' + c%10)
	}
	return b.String()
}
