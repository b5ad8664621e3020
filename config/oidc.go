package config

import (
	"errors"
	"slices"
	"strings"
)

// OIDC is the OpenID provider at which operators may sign in.
type OIDC struct {
	Issuer       string
	ClientID     string
	ClientSecret Secret
	Scopes       []string // default openid, email, profile
	GroupsClaim  string   // default groups
	TrustEmail   bool     // addresses count although the provider does not say that it has verified them
	Contact      string   // whom a person asks that no rule lets in; default "the operators of this Bifrost"
	Rules        []Rule   // at least one; the keys allowed_… make the first
}

// Rule lets those in of whom everything holds that it says: Emails and Domains are alternatives, and so are the values of each
// other list. At least one is given.
type Rule struct {
	Emails  []string // in lower case
	Domains []string // of email addresses, in lower case
	Groups  []string
	Claims  map[string][]string
	Rights
}

// empty says whether the rule would let everybody in.
func (r Rule) empty() bool {
	return len(r.Emails)+len(r.Domains)+len(r.Groups)+len(r.Claims) == 0
}

// readOIDC returns nil where the key is not given.
func readOIDC(n node, known []*Integration) *OIDC {
	if !n.given() {
		return nil
	}
	o, ok := n.object()
	if !ok {
		return nil
	}
	c := &OIDC{Scopes: []string{"openid", "email", "profile"}, GroupsClaim: "groups", Contact: "the operators of this Bifrost"}
	set(o.need("issuer"), &c.Issuer, issuerURL)
	set(o.need("client_id"), &c.ClientID, line)
	if s, ok := o.need("client_secret").secret(); ok {
		c.ClientSecret = s
	}
	set(o.at("scopes"), &c.Scopes, openIDScopes)
	set(o.at("groups_claim"), &c.GroupsClaim, line)
	setBool(o.at("trust_email"), &c.TrustEmail)
	set(o.at("contact"), &c.Contact, line)
	c.Rules = readRules(o, known)
	o.close()
	return c
}

// readRules reads the rule that the keys of the section itself make, and those under rules.
func readRules(o *object, known []*Integration) []Rule {
	var list []Rule
	given := slices.ContainsFunc(shorthands, func(key string) bool { return o.at(key).given() })
	first := readRule(o, "allowed_", known)
	switch {
	case given:
		list = append(list, first)
	case o.at("role").given() || o.at("integrations").given():
		o.problem("has role or integrations, but no allowed_… that they could be of: in a rule they stand in the rule")
	case !o.at("rules").lists():
		o.problem("lets nobody in: add allowed_emails, allowed_domains, allowed_groups or allowed_claims, or rules")
	}
	for _, item := range o.at("rules").items() {
		r, ok := item.object()
		if !ok {
			continue
		}
		rule := readRule(r, "", known)
		if rule.empty() && !slices.ContainsFunc(conditions, func(key string) bool { return r.at(key).given() }) {
			item.problem("would let in everybody whom the provider knows: add emails, domains, groups or claims")
		}
		r.close()
		list = append(list, rule)
	}
	return list
}

// The keys that say whom a rule lets in.
var (
	conditions = []string{"emails", "domains", "groups", "claims"}
	shorthands = []string{"allowed_emails", "allowed_domains", "allowed_groups", "allowed_claims"}
)

// readRule reads a rule whose conditions have names with this prefix.
func readRule(o *object, prefix string, known []*Integration) Rule {
	r := Rule{Rights: readRights(o, known)}
	setList(o.at(prefix+"emails"), &r.Emails, email)
	setList(o.at(prefix+"domains"), &r.Domains, domain)
	setList(o.at(prefix+"groups"), &r.Groups, line)
	claims := o.at(prefix + "claims")
	c, ok := claims.object()
	if !ok || !claims.given() {
		return r
	}
	r.Claims = map[string][]string{}
	for name, n := range c.all() {
		var values []string
		setList(n, &values, line)
		r.Claims[name] = values
	}
	if len(r.Claims) == 0 {
		claims.problem("is an empty mapping: list something or remove the key")
	}
	return r
}

// openIDScopes are scopes with openid among them: without it there is no ID token.
func openIDScopes(s string) ([]string, error) {
	list, err := scopes(s)
	if err == nil && !slices.Contains(list, "openid") {
		err = errors.New("must have openid among the scopes: without it the provider does not say who signs in")
	}
	return list, err
}

// email is an address of printable ASCII, which is compared in lower case.
func email(s string) (string, error) {
	at := strings.LastIndex(s, "@")
	odd := strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
	if at < 1 || odd || !validHost(s[at+1:]) {
		return "", errors.New("must be an email address in ASCII, such as ops@example.com")
	}
	return strings.ToLower(s), nil
}

// domain is what stands after the @ of an address. Its sub-domains are others.
func domain(s string) (string, error) {
	if !validHost(s) || strings.HasPrefix(s, "[") {
		return "", errors.New("must be the domain of email addresses, such as example.com, without @ and without *")
	}
	return strings.ToLower(s), nil
}
