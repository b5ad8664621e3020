package authflow

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// tokenEndpoint speaks to token and revocation endpoints. Each method makes at most one POST: no retry, no redirect, no
// probing for the way of client authentication, at any layer. golang.org/x/oauth2 builds the requests; the answers are read by
// classify, because the library loses tokens that it cannot parse and quotes bodies in its errors.
type tokenEndpoint struct{ transport http.RoundTripper }

// newTokenEndpoint returns a tokenEndpoint; a nil transport is a tuned one that uses no proxy.
func newTokenEndpoint(transport http.RoundTripper) *tokenEndpoint {
	if transport == nil {
		transport = newTokenTransport()
	}
	return &tokenEndpoint{transport}
}

// newTokenTransport returns the transport to token endpoints. Idle connections go after 3 s: that is shorter than servers
// keep them, so that hardly a POST is written to a connection which its server has just closed, with an unknown outcome.
func newTokenTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a secret goes where the configuration says, whatever the environment says
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    16,
		MaxIdleConns:           64,
		IdleConnTimeout:        3 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// exchange redeems the authorization code of a consent (RFC 6749 section 4.1.3). An empty verifier is not sent.
func (t *tokenEndpoint) exchange(ctx context.Context, in *Integration, ep Endpoints, code string, going consent) reply {
	cfg := in.tokenConfig(ep)
	cfg.RedirectURL = going.RedirectURI
	var opts []oauth2.AuthCodeOption
	if going.Verifier != "" {
		opts = append(opts, oauth2.VerifierOption(going.Verifier))
	}
	how := asking{once: true, within: in.exchangeTimeout(), identity: &identity{going.Nonce, in.ClientID, in.Issuer}}
	return t.ask(ctx, in, ep, how, func(ctx context.Context) {
		_, _ = cfg.Exchange(ctx, code, opts...) // our onePost has read the answer
	})
}

// refresh redeems a refresh token (RFC 6749 section 6).
func (t *tokenEndpoint) refresh(ctx context.Context, in *Integration, ep Endpoints, refreshToken string) reply {
	cfg := in.tokenConfig(ep)
	how := asking{once: in.Refresh == OneTime || in.Refresh == Rotating, renewable: true, within: in.timing().post}
	return t.ask(ctx, in, ep, how, func(ctx context.Context) {
		_, _ = cfg.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token() // our onePost has read the answer
	})
}

// mint asks for a token with the client's own credentials (RFC 6749 section 4.4).
func (t *tokenEndpoint) mint(ctx context.Context, in *Integration, ep Endpoints) reply {
	cfg := clientcredentials.Config{
		ClientID: in.ClientID, ClientSecret: in.clientSecret(), TokenURL: ep.TokenURL, Scopes: in.Scopes, AuthStyle: in.authStyle(),
	}
	if in.Audience != "" {
		cfg.EndpointParams = url.Values{"audience": {in.Audience}}
	}
	return t.ask(ctx, in, ep, asking{renewable: true, within: in.timing().post}, func(ctx context.Context) {
		_, _ = cfg.Token(ctx) // our onePost has read the answer
	})
}

// revoke revokes a token (RFC 7009); hint is access_token or refresh_token. It does nothing where there is no endpoint. A
// token that the provider does not know is no error.
func (t *tokenEndpoint) revoke(ctx context.Context, in *Integration, ep Endpoints, token, hint string) error {
	if ep.RevocationURL == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, in.exchangeTimeout())
	defer cancel()
	form := url.Values{"token": {token}, "token_type_hint": {hint}}
	if in.authStyle() == oauth2.AuthStyleInParams {
		form.Set("client_id", in.ClientID)
		if secret := in.clientSecret(); secret != "" {
			form.Set("client_secret", secret)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, ep.RevocationURL, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("authflow: revoke: the revocation URL is not valid")
	}
	req.Header.Set("Content-Type", formType)
	if in.authStyle() == oauth2.AuthStyleInHeader {
		req.SetBasicAuth(url.QueryEscape(in.ClientID), url.QueryEscape(in.clientSecret())) // RFC 6749 section 2.3.1
	}
	p := &onePost{transport: t.transport}
	_, _ = p.RoundTrip(req) // p.answer and p.fault say how it went
	switch {
	case p.answer == nil:
		return fmt.Errorf("authflow: revoke: %s", p.fault)
	case p.answer.status/100 != 2:
		return fmt.Errorf("authflow: revoke: the endpoint answered HTTP %d", p.answer.status)
	}
	return nil
}

// ask runs post, which makes one request with the client in its context, and classifies what came.
func (t *tokenEndpoint) ask(ctx context.Context, in *Integration, ep Endpoints, how asking, post func(context.Context)) reply {
	ctx, cancel := context.WithTimeout(ctx, how.within)
	defer cancel()
	how.anyType = in.Format != nil
	p := &onePost{transport: t.transport, params: ep.TokenParams}
	post(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: p}))
	if p.answer == nil {
		return noAnswer(p)
	}
	return classify(p.answer, how)
}

func (in *Integration) tokenConfig(ep Endpoints) *oauth2.Config {
	return &oauth2.Config{
		ClientID: in.ClientID, ClientSecret: in.clientSecret(),
		Endpoint: oauth2.Endpoint{TokenURL: ep.TokenURL, AuthStyle: in.authStyle()},
	}
}

// authStyle is never AuthStyleAutoDetect: that makes a second POST, with the same refresh token, after any failure.
func (in *Integration) authStyle() oauth2.AuthStyle {
	if in.ClientAuth == AuthBasic {
		return oauth2.AuthStyleInHeader
	}
	return oauth2.AuthStyleInParams
}

// clientSecret returns the client secret; a public client has none.
func (in *Integration) clientSecret() string {
	if in.ClientAuth == AuthNone || in.ClientSecret == nil {
		return ""
	}
	return in.ClientSecret()
}
