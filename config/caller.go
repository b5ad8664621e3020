package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"
)

// Caller may use the proxy. It has a key, or one of SANs or Subjects, at least.
type Caller struct {
	Name         string
	Keys         []CallerKey
	SANs         []string  // of client certificates, in the form that san returns
	Subjects     []Subject // whose JWTs are the caller's
	Orgs         []string  // "*": every org, "@global": the right to ask for the global connection
	Integrations []string  // "*": every integration
	Allow        []string  // "METHOD /path/**"; empty: everything

	MayReadTokens bool // access tokens of integrations with ExposeToken; never together with Allow
}

// CallerKey is one of a caller's keys. The key itself is not kept.
type CallerKey struct {
	SHA256   [sha256.Size]byte
	NotAfter time.Time // in UTC; zero: it never ends
}

// once finds what may stand once among all callers.
type once struct{ names, keys, sans, subjects unique }

func readCallers(n node, known []*Integration, issuers []CallerJWT) []Caller {
	var list []Caller
	seen := once{unique{}, unique{}, unique{}, unique{}}
	for _, item := range n.items() {
		o, ok := item.object()
		if !ok {
			continue
		}
		var c Caller
		c.Subjects = readSubjects(o.at("subjects"), issuers, seen.subjects)
		readProofs(o, &c, seen)
		setList(o.need("orgs"), &c.Orgs, callerOrg)
		setList(o.need("integrations"), &c.Integrations, oneOfThese(known))
		setList(o.at("allow"), &c.Allow, rule)
		reads := o.at("may_read_tokens")
		setBool(reads, &c.MayReadTokens)
		if c.MayReadTokens && o.at("allow").given() {
			reads.problem("would open every path to the caller, by the tokens themselves, while allow opens some: remove one of them")
		}
		o.close()
		list = append(list, c)
	}
	return list
}

// readProofs reads a caller's name and what proves it.
func readProofs(o *object, c *Caller, seen once) {
	if n := o.need("name"); set(n, &c.Name, who) {
		seen.names.check(n, c.Name)
	}
	if key, ok := readCallerKey(o, seen.keys); ok {
		c.Keys = append(c.Keys, key)
	}
	for _, item := range o.at("keys").fullItems() {
		one, ok := item.object()
		if !ok {
			continue
		}
		if key, ok := readCallerKey(one, seen.keys); ok {
			c.Keys = append(c.Keys, key)
		}
		if !one.at("key").given() && !one.at("key_sha256").given() {
			one.at("key").problem("is missing: add key or key_sha256")
		}
		one.close()
	}
	c.SANs = readSANs(o.at("sans"), seen.sans)
	if !slices.ContainsFunc([]string{"key", "key_sha256", "keys", "sans", "subjects"}, func(key string) bool { return o.at(key).given() }) {
		o.at("key").problem("is missing: add key, key_sha256, keys, sans or subjects")
	}
}

// readCallerKey reads the keys key, key_sha256 and not_after of a mapping that may have others. It is false if there is no key.
func readCallerKey(o *object, seen unique) (CallerKey, bool) {
	var k CallerKey
	clear, digest, end := o.at("key"), o.at("key_sha256"), o.at("not_after")
	set(end, &k.NotAfter, instant)
	at, ok := digest, false
	switch {
	case clear.given() && digest.given():
		digest.problem("stands beside key: remove one, or list both under keys")
	case clear.given():
		var s Secret
		at = clear
		s, ok = clear.credential()
		k.SHA256 = sha256.Sum256([]byte(s.Reveal()))
	case digest.given():
		ok = set(digest, &k.SHA256, sha256Hex)
	case end.given():
		end.problem("is the end of no key: it belongs beside key or key_sha256")
	}
	if ok {
		seen.check(at, hex.EncodeToString(k.SHA256[:]))
	}
	return k, ok
}

// sha256Hex is a SHA-256 in hex.
func sha256Hex(s string) (sum [sha256.Size]byte, err error) {
	if len(s) == hex.EncodedLen(len(sum)) {
		if _, err = hex.Decode(sum[:], []byte(s)); err == nil {
			return sum, nil
		}
	}
	return sum, errors.New("must be the 64 hex digits of the key's SHA-256: `bifrost key new` prints them beside a new key")
}

// instant is a time in RFC 3339.
func instant(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.IsZero() {
		return t, errors.New("must be a time with its zone, such as 2027-01-31T00:00:00Z")
	}
	return t.UTC(), nil
}
