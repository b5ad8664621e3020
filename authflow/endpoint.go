package authflow

import (
	"context"
	"net/http"
)

// tokenEndpoint speaks to token and revocation endpoints. Each method makes exactly one POST, never more.
type tokenEndpoint struct{ transport http.RoundTripper }

func newTokenEndpoint(transport http.RoundTripper) *tokenEndpoint { return &tokenEndpoint{transport} }

// exchange redeems an authorization code (RFC 6749 section 4.1.3).
func (t *tokenEndpoint) exchange(ctx context.Context, in *Integration, ep Endpoints, code, verifier, redirectURI string) reply {
	panic("skeleton")
}

// refresh redeems a refresh token (RFC 6749 section 6).
func (t *tokenEndpoint) refresh(ctx context.Context, in *Integration, ep Endpoints, refreshToken string) reply {
	panic("skeleton")
}

// mint asks for a token with the client's own credentials (RFC 6749 section 4.4).
func (t *tokenEndpoint) mint(ctx context.Context, in *Integration, ep Endpoints) reply {
	panic("skeleton")
}

// revoke revokes a token (RFC 7009). hint is access_token or refresh_token.
func (t *tokenEndpoint) revoke(ctx context.Context, in *Integration, ep Endpoints, token, hint string) error {
	panic("skeleton")
}
