package proxy

import (
	"net/http"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// tokenPath, and after it an integration's name, is where below /_bifrost a caller reads an access token.
const tokenPath = "/v1/integrations/"

var tokenMethods = []string{http.MethodGet}

// named returns the route of the integration that a raw path after /_bifrost names, or nil. Names are compared byte for byte.
func (p *Proxy) named(rest string) *route {
	name, ok := strings.CutPrefix(rest, tokenPath)
	if !ok {
		return nil
	}
	return p.names[name]
}

// readable reports whether the caller may read tokens of the integration at all. Where no callers are configured nobody may.
func (x *exchange) readable() bool {
	return x.caller != nil && x.caller.readsTokens && x.route.ExposeToken
}

// methods are those that the request's path takes.
func (x *exchange) methods() []string {
	if x.api {
		return tokenMethods
	}
	return x.route.Methods
}

// tokenAnswer is what the token API answers. Nothing else that goes to a caller may hold an access token.
type tokenAnswer struct {
	Name       string          `json:"name"`
	Org        *tokenstore.Org `json:"org"`        // that was asked for; null: the global connection was
	Connection string          `json:"connection"` // whose token it is: org or global
	EntityID   *string         `json:"entity_id"`  // of that connection; null: it has none
	OAuth      tokenJSON       `json:"oauth"`
}

type tokenJSON struct {
	AccessToken string   `json:"access_token"`
	TokenType   string   `json:"token_type"`
	ExpiresAt   *string  `json:"expires_at"` // RFC 3339 in UTC, to the second; null: unknown
	Scopes      []string `json:"scopes"`     // granted; never null
}

// giveToken answers an admitted request with the access token that a proxied request would be sent with.
func (x *exchange) giveToken() {
	cred, err := x.proxy.broker.Token(x.r.Context(), x.slot())
	if err != nil {
		x.answer(credentialFailure(x.r.Context(), err))
		return
	}
	if err := x.checkOwner(cred, cred.Access()); err != nil {
		x.answer(failureOf(x.r.Context(), err))
		return
	}
	x.status, x.connection = http.StatusOK, connectionOf(cred)
	x.writeJSON("application/json", x.tokenAnswerOf(cred))
}

func (x *exchange) tokenAnswerOf(cred authflow.Credential) tokenAnswer {
	out := tokenAnswer{
		Name:       x.route.Integration,
		Connection: x.connection,
		OAuth:      tokenJSON{AccessToken: cred.Access(), TokenType: cred.Type(), Scopes: cred.Scopes()},
	}
	if x.org != tokenstore.Global {
		out.Org = &x.org
	}
	if id := cred.EntityID(); id != "" {
		out.EntityID = &id
	}
	if end := cred.Expiry(); !end.IsZero() {
		out.OAuth.ExpiresAt = new(end.UTC().Format(time.RFC3339))
	}
	if out.OAuth.Scopes == nil {
		out.OAuth.Scopes = []string{}
	}
	return out
}
