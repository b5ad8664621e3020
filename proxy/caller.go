package proxy

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// caller is a Caller made ready, as one of its proofs names it: each of its keys makes one, and its certificates one together.
type caller struct {
	name           string
	digest         [sha256.Size]byte // of the key; the key itself is not kept
	ends           time.Time         // of the key; zero: never
	certified      bool              // a certificate named it, not a key
	claims         *claims           // that named it; nil: it was no JWT
	anyOrg, global bool
	orgs           map[tokenstore.Org]bool
	onlyOrg        tokenstore.Org // the one org that it is bound to; empty if there are none or several
	anyIntegration bool
	integrations   []string
	allow          []rule
	readsTokens    bool
}

// newCaller returns the rights of a Caller, without a proof.
func newCaller(cfg Caller) (*caller, error) {
	c := &caller{
		name:           cfg.Name,
		orgs:           make(map[tokenstore.Org]bool),
		integrations:   cfg.Integrations,
		anyIntegration: slices.Contains(cfg.Integrations, "*"),
		readsTokens:    cfg.MayReadTokens && len(cfg.Allow) == 0, // else it would hold what its rules keep from it
	}
	for _, org := range cfg.Orgs {
		switch {
		case org == "*":
			c.anyOrg = true
		case org == string(tokenstore.Global):
			c.global = true
		case tokenstore.Org(org).Valid():
			c.orgs[tokenstore.Org(org)] = true
			c.onlyOrg = tokenstore.Org(org)
		default:
			return nil, fmt.Errorf("%q is no org", org)
		}
	}
	if c.anyOrg || len(c.orgs) != 1 {
		c.onlyOrg = ""
	}
	var err error
	c.allow, err = parseRules(cfg.Allow)
	return c, err
}

// byKey returns the caller as one of its keys names it.
func (c *caller) byKey(k Key) *caller {
	named := *c
	named.digest, named.ends = k.SHA256, k.NotAfter
	return &named
}

// byCertificate returns the caller as its certificates name it.
func (c *caller) byCertificate() *caller {
	named := *c
	named.certified = true
	return &named
}

// ended reports whether the key that named the caller proves nothing any more.
func (c *caller) ended(now time.Time) bool { return !c.ends.IsZero() && now.After(c.ends) }

// uses reports whether the caller has any right to the integration. A nil caller stands for everyone, where no callers are
// configured.
func (c *caller) uses(integration string) bool {
	return c == nil || c.anyIntegration || slices.Contains(c.integrations, integration)
}

// may reports whether a caller who uses an integration may do so for the org with this method and raw path after the route.
func (c *caller) may(org tokenstore.Org, method, rest string) bool {
	if c == nil {
		return true
	}
	if org == tokenstore.Global {
		if !c.global {
			return false
		}
	} else if !c.anyOrg && !c.orgs[org] {
		return false
	}
	return len(c.allow) == 0 || allowedBy(c.allow, method, rest)
}

// callers are those whom a Proxy knows, by what they prove themselves with. It does not change once it is made.
type callers struct {
	keys  keyring
	names sanTable
	jwt   *jwtCallers // nil: no JWT counts
}

// add makes a Caller known by each of its proofs.
func (cs *callers) add(cfg Caller) error {
	keys, err := cfg.keys()
	if err != nil {
		return err
	}
	if cfg.Name == "" || len(keys)+len(cfg.SANs)+len(cfg.Subjects) == 0 {
		return errors.New("needs a Name, and a key, a SAN or a subject")
	}
	c, err := newCaller(cfg)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if !cs.keys.add(c.byKey(k)) {
			return errors.New("one of its keys is there twice")
		}
	}
	certified := c.byCertificate()
	for _, name := range cfg.SANs {
		if err := cs.names.add(name, certified); err != nil {
			return err
		}
	}
	for _, subject := range cfg.Subjects {
		if err := cs.jwt.addSubject(subject, c); err != nil {
			return err
		}
	}
	return nil
}

// keys returns all the keys.
func (cfg Caller) keys() ([]Key, error) {
	if cfg.Key == nil {
		return cfg.Keys, nil
	}
	key := cfg.Key()
	if key == "" || len(key) > maxKey {
		return nil, fmt.Errorf("its key is empty or longer than %d bytes", maxKey)
	}
	return append([]Key{{SHA256: digestOf(key)}}, cfg.Keys...), nil
}

// of returns whom a request names at this time, or nil. X-Bifrost-Key counts alone where it is sent; else Authorization does, and
// where that names nobody the client certificate.
func (cs *callers) of(r *http.Request, now time.Time) *caller {
	if keys, ok := r.Header["X-Bifrost-Key"]; ok {
		if len(keys) != 1 {
			return nil
		}
		return cs.keys.byKey(keys[0], now)
	}
	if c := cs.byAuthorization(r, now); c != nil {
		return c
	}
	return cs.names.find(verifiedLeaf(r.TLS), now)
}

// again returns whom these callers see in what named c at another time, leaf being the certificate where it was one; or nil.
func (cs *callers) again(c *caller, leaf *x509.Certificate, now time.Time) *caller {
	if c.claims != nil {
		return cs.jwt.again(c.claims)
	}
	if c.certified {
		return cs.names.find(leaf, now)
	}
	return cs.keys.byDigest(c.digest, now)
}

// ended reports whether the key, certificate or JWT that named c, as these callers know it, has ended, or the JWT's key is withdrawn.
func (cs *callers) ended(c *caller, leaf *x509.Certificate, now time.Time) bool {
	if c.claims != nil {
		return c.claims.over(now)
	}
	if c.certified {
		return now.After(leaf.NotAfter)
	}
	current := cs.keys.find(c.digest)
	return current != nil && current.ended(now)
}

// byAuthorization returns whom a request's Authorization names, or nil. A header sent twice proves nothing.
func (cs *callers) byAuthorization(r *http.Request, now time.Time) *caller {
	values := r.Header["Authorization"]
	if len(values) != 1 {
		return nil
	}
	scheme, credentials, _ := strings.Cut(values[0], " ")
	credentials = strings.TrimLeft(credentials, " ")
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return cs.byBearer(r, credentials, now)
	case strings.EqualFold(scheme, "token"):
		return cs.keys.byKey(credentials, now)
	case strings.EqualFold(scheme, "Basic"):
		return cs.keys.byBasic(credentials, now)
	}
	return nil
}

// byBearer returns whom a Bearer credential names, a key or else a JWT, or nil.
func (cs *callers) byBearer(r *http.Request, credential string, now time.Time) *caller {
	if c := cs.keys.byKey(credential, now); c != nil {
		return c
	}
	return cs.jwt.caller(r.Context(), credential, now)
}
