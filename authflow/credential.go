package authflow

import (
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Credential is a usable access token and whose it is. It is a small value; its secrets are behind methods, and it has none for
// the refresh token.
type Credential struct {
	Slot tokenstore.Slot // whose token it really is: the org's own, or Global after a fallback
	snap *snapshot
}

// NewCredential returns a credential that injects header, for tests of those who use a Broker. Its access token is what follows
// the scheme in header; of expiry, scopes and entity id nothing is known.
func NewCredential(slot tokenstore.Slot, header string) Credential {
	scheme, access, two := strings.Cut(header, " ")
	if !two {
		scheme, access = "", header
	}
	rec := &tokenstore.Record{Token: tokenstore.Token{Access: access, Type: scheme}}
	return Credential{slot, &snapshot{header: [1]string{header}, packed: tokenstore.Pack(rec)}}
}

// SameGrant reports whether two credentials belong to one connection and one consent: a refresh does not change that, a
// reconnect does.
func (c Credential) SameGrant(other Credential) bool {
	return c.Slot == other.Slot && c.snap.record().Grant == other.snap.record().Grant
}

// Header returns the ready value to inject, such as "Bearer …". It is a secret.
func (c Credential) Header() string { return c.snap.header[0] }

// Values returns Header as the values of a header, ready to be shared by every request: do not change them.
func (c Credential) Values() []string { return c.snap.header[:] }

// Access returns the access token as the provider issued it. It is a secret.
func (c Credential) Access() string { return c.snap.record().Token.Access }

// Type returns the token's type (RFC 6749 section 7.1): "Bearer", or what else the provider calls it.
func (c Credential) Type() string { return c.snap.record().Token.Type }

// Expiry returns when the token ends; zero if that is unknown. Where the provider did not say, it is the integration's default
// lifetime after the token came.
func (c Credential) Expiry() time.Time { return c.snap.record().Token.Expiry }

// Scopes returns the scopes granted, not requested; nil if none are known. The list is the caller's own.
func (c Credential) Scopes() []string { return c.snap.record().Scopes }

// EntityID returns what {entity_id} stands for at the connection whose token it is; empty if there is none.
func (c Credential) EntityID() string {
	if c.snap.in == nil {
		return ""
	}
	ep, err := c.snap.in.Resolve(c.Slot.Org)
	if err != nil {
		return "" // a reload took a value away; the token is used to its end
	}
	return ep.EntityID
}
