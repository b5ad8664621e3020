package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// maxJWT is the longest token in bytes.
const maxJWT = 16 << 10

// JWTIssuer makes JWTs that callers may send as Bearer in place of a key. Issuer and Audience are required.
//
// A token counts if one of the issuer's published keys has signed it with one of Algorithms; if iss is Issuer, aud names one of
// Audience, and exp, nbf and iat agree with the clock, give or take 30 s. Its caller is the [Caller] that names its sub, within
// the orgs that the claim at OrgClaim names and the integrations that the claim at IntegrationsClaim names: a claim that the token
// has takes rights of the Caller away, and gives none. Whom no Caller names may use the orgs of the one claim, never "*" or the
// global connection, with the integrations of the other.
type JWTIssuer struct {
	Issuer     string   // compared byte for byte
	Audience   []string // one of them must be in a token
	KeysURL    string   // of the JSON Web Key Set; empty: found by discovery, when a token first needs it
	Algorithms []string // of RFC 7518 or EdDSA, none symmetric; nil: RS256 and ES256

	// OrgClaim and IntegrationsClaim are the names that lead to a claim, one per level of nesting. Nil: there is no OrgClaim, so
	// that only subjects of Callers have rights; or every integration may be used. A claim is a text or a list of texts.
	OrgClaim, IntegrationsClaim []string
}

// Subject is the sub of an issuer's JWTs.
type Subject struct{ Issuer, Subject string }

// jwtIssuer is a JWTIssuer made ready.
type jwtIssuer struct {
	JWTIssuer
	keys     *keySet
	subjects map[string]*caller // that an entry of Callers names
}

// asymmetric are the algorithms with which only the issuer can sign.
var asymmetric = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// jwtCallers are the callers that JWTs name. Nil: no issuer is configured.
type jwtCallers struct {
	issuers  map[string]*jwtIssuer
	verified verifiedTable
	log      *slog.Logger
}

func newJWTCallers(issuers []JWTIssuer, sets *KeySets, log *slog.Logger) (*jwtCallers, error) {
	if len(issuers) == 0 {
		return nil, nil
	}
	if sets == nil {
		sets = NewKeySets(nil, log)
	}
	j := &jwtCallers{issuers: make(map[string]*jwtIssuer), log: log}
	for _, one := range issuers {
		if one.Algorithms == nil {
			one.Algorithms = []string{string(jose.RS256), string(jose.ES256)}
		}
		known := func(name string) bool { return slices.Contains(asymmetric, jose.SignatureAlgorithm(name)) }
		switch {
		case one.Issuer == "" || len(one.Audience) == 0:
			return nil, errors.New("an issuer of JWTs needs an Issuer and an Audience")
		case j.issuers[one.Issuer] != nil:
			return nil, fmt.Errorf("issuer %s is there twice", one.Issuer)
		case len(one.Algorithms) == 0 || slices.ContainsFunc(one.Algorithms, func(name string) bool { return !known(name) }):
			return nil, fmt.Errorf("issuer %s: an algorithm is unknown or symmetric", one.Issuer)
		}
		j.issuers[one.Issuer] = &jwtIssuer{one, sets.set(keySource{one.Issuer, one.KeysURL}), make(map[string]*caller)}
	}
	return j, nil
}

// addSubject makes c the caller of an issuer's tokens with this sub.
func (j *jwtCallers) addSubject(s Subject, c *caller) error {
	if j == nil || j.issuers[s.Issuer] == nil {
		return errors.New("one of its subjects is of an issuer that is not configured")
	}
	subjects := j.issuers[s.Issuer].subjects
	if s.Subject == "" || subjects[s.Subject] != nil {
		return errors.New("one of its subjects is empty, or there twice")
	}
	subjects[s.Subject] = c
	return nil
}

// caller returns whom a Bearer credential names, or nil. It waits, 5 s at most, if the issuer's keys must be read for that.
func (j *jwtCallers) caller(ctx context.Context, token string, now time.Time) *caller {
	if j == nil || len(token) > maxJWT || strings.Count(token, ".") != 2 {
		return nil
	}
	digest := digestOfJWT(token)
	if v := j.verified.find(digest, now); v != nil {
		v.keys.renew(now)
		return v.caller
	}
	v, err := j.verify(ctx, token, now)
	if err != nil {
		j.log.LogAttrs(ctx, slog.LevelDebug, "a JWT was refused", slog.String("why", err.Error()))
		return nil
	}
	v.digest = digest
	j.verified.put(v, now)
	return v.caller
}

// verify says whether a token counts. What is cheap is looked at first: nothing is read, and no signature checked, for a token
// that would not count anyway.
func (j *jwtCallers) verify(ctx context.Context, token string, now time.Time) (*verified, error) {
	jws, err := jose.ParseSignedCompact(token, asymmetric)
	if err != nil {
		return nil, unproven("it is malformed, or its algorithm is none, symmetric or unknown")
	}
	all, err := readClaims(jws.UnsafePayloadWithoutVerification())
	if err != nil {
		return nil, err
	}
	iss, _ := all["iss"].(string)
	issuer := j.issuers[iss]
	if issuer == nil {
		return nil, unproven("its issuer is not configured")
	}
	c, err := issuer.check(all, now)
	if err != nil {
		return nil, err
	}
	if c.key, err = issuer.signedBy(ctx, jws, now); err != nil {
		return nil, err
	}
	c.keys = issuer.keys
	return &verified{until: earlier(c.ends, now.Add(verifiedFor)), key: c.key, keys: c.keys, caller: issuer.caller(c)}, nil
}

// signedBy returns which of the issuer's keys has signed. Keys that a token brings along or points to are not looked at.
func (i *jwtIssuer) signedBy(ctx context.Context, jws *jose.JSONWebSignature, now time.Time) (*publicKey, error) {
	header := jws.Signatures[0].Protected
	if !slices.Contains(i.Algorithms, header.Algorithm) {
		return nil, unproven("its algorithm is not one of the issuer's algorithms")
	}
	if _, critical := header.ExtraHeaders["crit"]; critical {
		return nil, unproven("its header has crit")
	}
	found := i.keys.find(ctx, header.KeyID, header.Algorithm, now)
	if len(found) == 0 {
		return nil, unproven("its key is none of those that are known of the issuer")
	}
	for _, k := range found {
		if _, err := jws.Verify(k.key); err == nil {
			return k, nil
		}
	}
	return nil, unproven("its signature is wrong")
}

// again returns whom these callers see in the claims that named a caller before, or nil. That the token has ended is not looked at.
func (j *jwtCallers) again(c *claims) *caller {
	if j == nil {
		return nil
	}
	issuer := j.issuers[c.issuer.Issuer]
	if issuer == nil || !reflect.DeepEqual(issuer.JWTIssuer, c.issuer) { // it may read other claims now
		return nil
	}
	return issuer.caller(c)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// digestOfJWT hashes without putting a token of usual length on the heap.
func digestOfJWT(token string) [sha256.Size]byte {
	var buf [4 << 10]byte
	if len(token) > len(buf) {
		return sha256.Sum256([]byte(token))
	}
	return sha256.Sum256(buf[:copy(buf[:], token)])
}
