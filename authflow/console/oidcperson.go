package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// Rule lets somebody in of whom everything holds that it says. Emails and Domains are alternatives to each other, and so are the
// values of any one list. A rule that says nothing lets nobody in.
type Rule struct {
	Emails  []string
	Domains []string // of email addresses, exactly: sub-domains are others
	Groups  []string
	Claims  map[string][]string
	Rights  Rights
}

func (r Rule) empty() bool { return len(r.Emails)+len(r.Domains)+len(r.Groups)+len(r.Claims) == 0 }

// person is what the provider says of somebody who signs in: the claims of the ID token, and of the userinfo endpoint what the
// ID token does not say.
type person map[string]any

// parsePerson reads claims, numbers as they are written.
func parsePerson(claims []byte) (person, error) {
	var p person
	dec := json.NewDecoder(bytes.NewReader(claims))
	dec.UseNumber()
	if err := dec.Decode(&p); err != nil || p == nil {
		return nil, errors.New("the claims are no JSON object")
	}
	return p, nil
}

// values returns a claim's values as text, whether it is one or a list; objects have none.
func (p person) values(claim string) []string {
	list, ok := p[claim].([]any)
	if !ok {
		list = []any{p[claim]}
	}
	var texts []string
	for _, v := range list {
		switch v := v.(type) {
		case string:
			texts = append(texts, v)
		case json.Number:
			texts = append(texts, v.String())
		case bool:
			texts = append(texts, map[bool]string{true: "true", false: "false"}[v])
		}
	}
	return texts
}

// text returns a claim that is one text, or nothing.
func (p person) text(claim string) string {
	s, _ := p[claim].(string) // of another type: nothing
	return s
}

// address returns the email address in lower case if it is one of ASCII, which alone can be compared, and cannot look like
// another.
func (p person) address() string {
	email := p.text("email")
	if at := strings.LastIndex(email, "@"); at < 1 || at == len(email)-1 || len(email) > 254 || !visible(email) {
		return ""
	}
	return lower(email)
}

// verified says whether the provider has made sure that the address is this person's (OpenID Connect Core section 5.1). Some
// write true as a text.
func (p person) verified() bool { return p["email_verified"] == true || p["email_verified"] == "true" }

// email returns the address if it counts. One that the provider has not verified does not, unless the operator says so: at many
// providers it is whatever a user of any tenant has typed in.
func (o *openID) email(p person) string {
	if !p.verified() && !o.TrustEmail {
		return ""
	}
	return p.address()
}

// rightsOf returns what the rules in force let somebody do. The first rule that lets him in counts.
func (o *openID) rightsOf(p person) (Rights, bool) {
	for _, r := range o.Rules {
		if o.lets(r, p) {
			return r.Rights, true
		}
	}
	return Rights{}, false
}

// lets looks at a claim as it is written, but an address that does not count is none, whichever way it is asked for.
func (o *openID) lets(r Rule, p person) bool {
	if r.empty() || len(r.Emails)+len(r.Domains) > 0 && !r.letsEmail(o.email(p)) || len(r.Groups) > 0 && !overlap(r.Groups, p.values(o.GroupsClaim)) {
		return false
	}
	for claim, values := range r.Claims {
		if claim == "email" && o.email(p) == "" || !overlap(values, p.values(claim)) {
			return false
		}
	}
	return true
}

// letsEmail compares an address, in lower case, or nothing.
func (r Rule) letsEmail(email string) bool {
	if email == "" {
		return false
	}
	is := func(want string) func(string) bool { return func(s string) bool { return lower(s) == want } }
	return slices.ContainsFunc(r.Emails, is(email)) || slices.ContainsFunc(r.Domains, is(email[strings.LastIndex(email, "@")+1:]))
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// asks returns the claims that the rules and the records look at.
func (o *openID) asks() []string {
	claims := []string{"email"}
	for _, r := range o.Rules {
		if len(r.Groups) > 0 {
			claims = append(claims, o.GroupsClaim)
		}
		for claim := range r.Claims {
			claims = append(claims, claim)
		}
	}
	return claims
}

// complete says whether a person's claims answer everything that asks asks.
func (o *openID) complete(p person) bool {
	return !slices.ContainsFunc(o.asks(), func(claim string) bool { _, ok := p[claim]; return !ok })
}

// add takes from the userinfo endpoint what the ID token does not say. An address and whether it is verified belong together.
func (p person) add(userinfo person) {
	_, hasEmail := p["email"]
	for claim, value := range userinfo {
		if _, said := p[claim]; !said && !(claim == "email_verified" && hasEmail) {
			p[claim] = value
		}
	}
	if _, ok := userinfo["email"]; ok && !hasEmail {
		p["email_verified"] = userinfo["email_verified"]
	}
}

// name is how records call somebody: by the email address if it counts, else by the provider's own id with "sub:" before it, so
// that no id can be taken for an address. An operator by token who has the same name keeps it alone.
func (c *console) name(p person) string {
	email := c.oidc.email(p)
	if email == "" {
		return "sub:" + p.text("sub")
	}
	if slices.ContainsFunc(c.operators, func(op Operator) bool { return lower(op.Name) == email }) {
		return email + " (OIDC)"
	}
	return email
}

// visible says whether s is of printable ASCII without spaces.
func visible(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// lower folds ASCII letters and nothing else: other letters have more than one way to be folded.
func lower(s string) string {
	return strings.Map(func(c rune) rune {
		if 'A' <= c && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, s)
}
