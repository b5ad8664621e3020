package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// maxKey bounds what is hashed for a request that claims a key.
const maxKey = 512

// caller is a Caller made ready, as one of its keys names it: several keys make several of it. No key itself is kept.
type caller struct {
	name           string
	digest         [sha256.Size]byte // of the key
	ends           time.Time         // of the key; zero: never
	anyOrg, global bool
	orgs           map[tokenstore.Org]bool
	onlyOrg        tokenstore.Org // the one org that it is bound to; empty if there are none or several
	anyIntegration bool
	integrations   []string
	allow          []rule
	readsTokens    bool
}

func newCaller(cfg Caller) (*caller, error) {
	if cfg.Name == "" || cfg.Key == nil {
		return nil, errors.New("a caller needs a Name and a Key")
	}
	key := cfg.Key()
	if key == "" || len(key) > maxKey {
		return nil, fmt.Errorf("caller %s: its key is empty or longer than %d bytes", cfg.Name, maxKey)
	}
	c := &caller{
		name:           cfg.Name,
		digest:         digestOf(key),
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
		case validOrg(org):
			c.orgs[tokenstore.Org(org)] = true
			c.onlyOrg = tokenstore.Org(org)
		default:
			return nil, fmt.Errorf("caller %s: %q is no org", cfg.Name, org)
		}
	}
	if c.anyOrg || len(c.orgs) != 1 {
		c.onlyOrg = ""
	}
	var err error
	c.allow, err = parseRules(cfg.Allow)
	return c, err
}

// ended reports whether what the caller was known by proves nothing any more.
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

// keyring finds callers by key: by the first bytes of the key's SHA-256, and then in constant time by all of it. A digest's
// beginning tells nothing of a key, so the look-up need not hide it.
type keyring map[uint64][]*caller

func (k keyring) add(c *caller) bool {
	if k.find(c.digest) != nil {
		return false
	}
	at := binary.NativeEndian.Uint64(c.digest[:])
	k[at] = append(k[at], c)
	return true
}

func (k keyring) find(digest [sha256.Size]byte) *caller {
	for _, c := range k[binary.NativeEndian.Uint64(digest[:])] {
		if subtle.ConstantTimeCompare(c.digest[:], digest[:]) == 1 {
			return c
		}
	}
	return nil
}

// callers are those whom a Proxy knows, by what they prove themselves with. It does not change once it is made.
type callers struct {
	keys keyring
}

// of returns whom a request names at this time, or nil. X-Bifrost-Key counts alone where it is sent; else Authorization does.
func (cs *callers) of(r *http.Request, now time.Time) *caller {
	if keys, ok := r.Header["X-Bifrost-Key"]; ok {
		if len(keys) != 1 {
			return nil
		}
		return cs.keys.byKey(keys[0], now)
	}
	return cs.byAuthorization(r, now)
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

// byBearer returns whom a Bearer credential names, or nil.
func (cs *callers) byBearer(_ *http.Request, credential string, now time.Time) *caller {
	return cs.keys.byKey(credential, now)
}

// byBasic takes the key as password or, as some SDKs send it, as user (RFC 7617).
func (k keyring) byBasic(credentials string, now time.Time) *caller {
	decoded, err := base64.StdEncoding.DecodeString(credentials)
	if err != nil {
		return nil
	}
	user, password, _ := strings.Cut(string(decoded), ":")
	if c := k.byKey(password, now); c != nil {
		return c
	}
	return k.byKey(user, now)
}

// byKey returns whose key it is, or nil: a key past its end proves nothing.
func (k keyring) byKey(key string, now time.Time) *caller {
	if key == "" || len(key) > maxKey {
		return nil
	}
	c := k.find(digestOf(key))
	if c == nil || c.ended(now) {
		return nil
	}
	return c
}

// digestOf hashes without putting the key on the heap.
func digestOf(key string) [sha256.Size]byte {
	var buf [maxKey]byte
	return sha256.Sum256(buf[:copy(buf[:], key)])
}
