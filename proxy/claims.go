package proxy

import (
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	josejson "github.com/go-jose/go-jose/v4/json"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	clockLeeway = 30 * time.Second // by which an issuer's clock may differ from ours, either way
	maxSubject  = 512
	maxInstant  = 1 << 40 // seconds; what is beyond is no time
)

// unproven is why a JWT proves nothing. It quotes nothing of the token.
type unproven string

func (u unproven) Error() string { return string(u) }

// claims are what a JWT says of its caller. Whether it says so truly is not theirs to know.
type claims struct {
	issuer       JWTIssuer
	subject      string
	ends         time.Time               // exp
	key          *publicKey              // that has signed it
	keys         *keySet                 // which that is one of
	bound        bool                    // it has the claim that names orgs
	orgs         map[tokenstore.Org]bool // that it names, the valid ones alone
	limited      bool                    // it has the claim that names integrations
	integrations []string                // that it names; nil: none
}

// readClaims returns what a payload holds. A name that stands twice in an object has two readings: the payload is refused then.
// Names are compared byte for byte.
func readClaims(payload []byte) (map[string]any, error) {
	var all map[string]any
	if !utf8.Valid(payload) || josejson.Unmarshal(payload, &all) != nil || all == nil {
		return nil, unproven("its claims are no JSON object, or name something twice")
	}
	return all, nil
}

// check returns the claims of a token of this issuer, unless they say that it does not count here or now.
func (i *jwtIssuer) check(all map[string]any, now time.Time) (*claims, error) {
	c := &claims{issuer: i.JWTIssuer}
	c.subject, _ = all["sub"].(string)
	if c.subject == "" || len(c.subject) > maxSubject {
		return nil, unproven("it has no sub, or one longer than 512 bytes")
	}
	if !slices.ContainsFunc(texts(all["aud"]), func(one string) bool { return slices.Contains(i.Audience, one) }) {
		return nil, unproven("it is meant for another audience")
	}
	var ok bool
	if c.ends, ok = instant(all["exp"]); !ok {
		return nil, unproven("it has no exp that is a time")
	}
	if c.ended(now) {
		return nil, unproven("it has expired")
	}
	for _, name := range []string{"nbf", "iat"} {
		value, given := all[name]
		from, ok := instant(value)
		if given && !ok {
			return nil, unproven("its " + name + " is no time")
		}
		if given && now.Add(clockLeeway).Before(from) {
			return nil, unproven("its " + name + " is in the future")
		}
	}
	i.readRights(c, all)
	return c, nil
}

func (c *claims) ended(now time.Time) bool { return !now.Before(c.ends.Add(clockLeeway)) }

// over reports whether a verified token has ended, or its key with it. It has the keys read again where they are due.
func (c *claims) over(now time.Time) bool {
	c.keys.renew(now)
	return c.ended(now) || c.key.gone.Load()
}

// readRights reads what the claims name that the configuration looks for.
func (i *jwtIssuer) readRights(c *claims, all map[string]any) {
	var named any
	if named, c.bound = claimAt(all, i.OrgClaim); c.bound {
		c.orgs = make(map[tokenstore.Org]bool)
		for _, org := range texts(named) {
			if tokenstore.Org(org).Valid() { // nor is "*" or "@global" one
				c.orgs[tokenstore.Org(org)] = true
			}
		}
	}
	if named, c.limited = claimAt(all, i.IntegrationsClaim); c.limited {
		c.integrations = texts(named)
	}
}

// claimAt follows a path of names through nested objects. A nil path finds nothing.
func claimAt(all map[string]any, path []string) (value any, found bool) {
	value = all
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, found = object[name]; !found {
			return nil, false
		}
	}
	return value, found
}

// texts returns a claim's text, or the texts of its list; nothing of one that holds anything else.
func texts(claim any) []string {
	switch claim := claim.(type) {
	case string:
		return []string{claim}
	case []any:
		list := make([]string, 0, len(claim))
		for _, one := range claim {
			text, ok := one.(string)
			if !ok {
				return nil
			}
			list = append(list, text)
		}
		return list
	}
	return nil
}

// instant is a NumericDate (RFC 7519 section 2).
func instant(claim any) (time.Time, bool) {
	seconds, ok := claim.(float64)
	if !ok || !(0 <= seconds && seconds < maxInstant) {
		return time.Time{}, false
	}
	return time.Unix(int64(seconds), 0), true
}

// caller returns whom the claims stand for, with the rights of the entry of callers that names its subject, or with those that
// the claims give it.
func (i *jwtIssuer) caller(c *claims) *caller {
	if entry := i.subjects[c.subject]; entry != nil {
		return entry.within(c)
	}
	named := &caller{
		name:           i.Issuer + " " + c.subject, // no name in the configuration has a space
		claims:         c,
		orgs:           c.orgs,
		anyIntegration: i.IntegrationsClaim == nil,
		integrations:   c.integrations,
	}
	named.settleOrgs()
	return named
}

// within returns the caller with those of its rights that claims leave it: where they name orgs, no other one and not the global
// connection; where they name integrations, no other one.
func (c *caller) within(claims *claims) *caller {
	narrow := *c
	narrow.claims = claims
	if claims.limited {
		narrow.anyIntegration = false
		narrow.integrations = slices.DeleteFunc(slices.Clone(claims.integrations), func(name string) bool { return !c.uses(name) })
	}
	if !claims.bound {
		return &narrow
	}
	narrow.orgs = make(map[tokenstore.Org]bool, len(claims.orgs))
	for org := range claims.orgs {
		if c.anyOrg || c.orgs[org] {
			narrow.orgs[org] = true
		}
	}
	narrow.anyOrg, narrow.global = false, false
	narrow.settleOrgs()
	return &narrow
}

// settleOrgs finds the one org that a caller of claims is bound to. Whoever may use no org may use nothing.
func (c *caller) settleOrgs() {
	c.onlyOrg = ""
	switch len(c.orgs) {
	case 0:
		c.anyIntegration, c.integrations = false, nil
	case 1:
		for org := range maps.Keys(c.orgs) {
			c.onlyOrg = org
		}
	}
}
