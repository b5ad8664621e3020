package config

import (
	"errors"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// CallerJWT is an issuer whose JWTs callers may send instead of a key.
type CallerJWT struct {
	Issuer     string   // equal to iss, byte for byte
	Audience   []string // aud must name one of them
	JWKSURL    string   // of the keys; empty: the one that the issuer's discovery document names
	Algorithms []string // default RS256 and ES256; asymmetric ones only

	// OrgClaim is the way to the claim that names the caller's org or orgs: one name, or one per level of nesting. Nil: none does,
	// and only subjects that an entry of callers lists are callers.
	OrgClaim []string
	// IntegrationsClaim is the way to the claim that names the integrations that such a caller may use; nil: it may use all. Of the
	// rights of a subject that an entry of callers lists, either claim leaves what it names, where a token has it.
	IntegrationsClaim []string
}

// Subject is somebody for whom an issuer makes JWTs.
type Subject struct{ Issuer, Subject string }

// readCallerJWT reads one issuer, or a list of them.
func readCallerJWT(n node) []CallerJWT {
	var list []CallerJWT
	issuers := unique{}
	for _, item := range n.oneOrMore() {
		o, ok := item.object()
		if !ok {
			continue
		}
		j := CallerJWT{Algorithms: []string{"RS256", "ES256"}}
		if issuer := o.need("issuer"); set(issuer, &j.Issuer, issuerURL) {
			issuers.check(issuer, j.Issuer)
		}
		j.Audience = readAudience(o.need("audience"))
		set(o.at("jwks_url"), &j.JWKSURL, keysURL)
		if chosen := o.at("algorithms"); chosen.given() {
			j.Algorithms = nil
			setList(chosen, &j.Algorithms, algorithm)
		}
		j.OrgClaim = claimPath(o.at("org_claim"))
		j.IntegrationsClaim = claimPath(o.at("integrations_claim"))
		o.close()
		list = append(list, j)
	}
	return list
}

// oneOrMore returns the items of a list, or the one value that stands in its place.
func (n node) oneOrMore() []node {
	if !n.given() || n.yaml.Kind == yaml.SequenceNode {
		return n.fullItems()
	}
	return []node{n}
}

func readAudience(n node) []string {
	var list []string
	for _, item := range n.oneOrMore() {
		var one string
		switch {
		case !set(item, &one, line):
		case slices.Contains(list, one):
			item.problem("stands in this list twice: remove one")
		default:
			list = append(list, one)
		}
	}
	return list
}

// claimPath reads the name of a claim, or the names that lead to a nested one. Claims have names with dots and slashes, so that
// no character of a name can part the levels.
func claimPath(n node) []string {
	var path []string
	for _, item := range n.oneOrMore() {
		var one string
		if set(item, &one, line) {
			path = append(path, one)
		}
	}
	return path
}

// keysURL is the address of a key set. Its query is kept.
func keysURL(s string) (string, error) { return s, checkURL(s, false, true) }

// algorithms are those of RFC 7518 and RFC 8037 with which only the issuer can sign.
var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func algorithm(s string) (string, error) {
	switch {
	case slices.Contains(algorithms, s):
		return s, nil
	case strings.EqualFold(s, "none"):
		return "", errors.New("would take tokens that nobody signed: remove it")
	case strings.HasPrefix(strings.ToUpper(s), "HS"):
		return "", errors.New("is symmetric, so that whoever can check a token could make one: use an asymmetric one such as RS256")
	}
	return "", errors.New("must be " + strings.Join(algorithms, " or "))
}

// readSubjects reads whose JWTs an entry of callers stands for. With one issuer the subject alone says whose; with several each
// is written {issuer: URL, subject: TEXT}, because issuers do not agree on who has which name.
func readSubjects(n node, issuers []CallerJWT, seen unique) []Subject {
	var list []Subject
	for _, item := range n.fullItems() {
		s, ok := readSubject(item, issuers)
		if ok {
			seen.check(item, s.Issuer+" "+s.Subject) // no URL has a space
			list = append(list, s)
		}
	}
	if len(issuers) == 0 && len(list) > 0 {
		n.problem("needs caller_jwt, which says whose tokens are taken")
	}
	return list
}

func readSubject(n node, issuers []CallerJWT) (s Subject, ok bool) {
	if n.yaml.Kind != yaml.MappingNode {
		if ok = set(n, &s.Subject, subject); ok && len(issuers) > 1 {
			n.problem("could be anybody's: with several issuers in caller_jwt it is written {issuer: URL, subject: TEXT}")
			return s, false
		}
		if len(issuers) == 1 {
			s.Issuer = issuers[0].Issuer
		}
		return s, ok
	}
	o, _ := n.object()
	ok = set(o.need("subject"), &s.Subject, subject)
	issuer := o.need("issuer")
	if !set(issuer, &s.Issuer, issuerURL) {
		ok = false
	} else if len(issuers) > 0 && !slices.ContainsFunc(issuers, func(j CallerJWT) bool { return j.Issuer == s.Issuer }) {
		issuer.problem("is not an issuer of caller_jwt: they are compared byte for byte")
		ok = false
	}
	o.close()
	return s, ok
}

// subject is the sub of a JWT. The longest names of Kubernetes service accounts have 339 bytes.
func subject(s string) (string, error) {
	if len(s) > 512 {
		return "", errors.New("is longer than 512 bytes")
	}
	return line(s)
}

// checkCallerJWT reports an issuer whose tokens could give nobody a right.
func checkCallerJWT(n node, c *Config) {
	for _, item := range n.oneOrMore() {
		o, ok := item.object()
		if !ok || o.at("org_claim").given() {
			continue
		}
		var issuer string
		named := set(o.at("issuer"), &issuer, issuerURL) && slices.ContainsFunc(c.Callers, func(caller Caller) bool {
			return slices.ContainsFunc(caller.Subjects, func(s Subject) bool { return s.Issuer == issuer })
		})
		if issuer != "" && !named {
			item.problem("gives nobody a right: name the claim that has the org in org_claim, or list subjects in an entry of callers")
		}
	}
}
