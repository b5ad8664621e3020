package authflow

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// TestFailuresQuoteNothing: a provider that echoes the request, and a transport whose errors quote it, put no secret, no
// header, no query and no provider text into what is shown and logged.
func TestFailuresQuoteNothing(t *testing.T) {
	echo := roundTripper(func(r *http.Request) (*http.Response, error) {
		body := new(bytes.Buffer)
		_, _ = body.ReadFrom(r.Body)
		return nil, fmt.Errorf("CANARY %s %v %s: %w", r.URL, r.Header, body, tls.AlertError(40))
	})
	quoting := roundTripper(func(r *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("CANARY %s %v: %w", r.URL, r.Header, errors.New("unreachable"))
	})
	for _, auth := range []ClientAuth{AuthPost, AuthBasic} {
		for name, post := range everyPost {
			p := authflowtest.NewProvider(authflowtest.Config{ClientAuth: string(auth)})
			in, ep := integrationAt(p)
			in.ClientAuth = auth
			ep.TokenURL += "?key=CANARY-query"
			ep.TokenParams = map[string]string{"p": "CANARY-param"}
			for _, transport := range []http.RoundTripper{echo, quoting, p.Transport()} {
				for _, b := range []authflowtest.Behaviour{
					authflowtest.HTML(200), authflowtest.HTML(403), authflowtest.Status(503, ""), authflowtest.OAuthError(400, "CANARY-code"),
					authflowtest.OAuthError(400, "invalid_grant"), authflowtest.Raw(200, "application/json", `{"access_token":"CANARY`),
					authflowtest.Redirect(307, "https://elsewhere.test/?CANARY"), authflowtest.DropAfter(),
				} {
					p.Misbehave(b)
					r := post(t.Context(), t, newTokenEndpoint(transport), p, in, ep)
					require.NotEqual(t, granted, r.class)
					require.NotContains(t, r.code+r.text, "CANARY", name)
					require.NotContains(t, r.text, "idp.test")
					require.NotContains(t, r.text, "Basic")
					p.Behave()
				}
			}
			for _, transport := range []http.RoundTripper{echo, quoting} {
				err := newTokenEndpoint(transport).revoke(t.Context(), in, ep, "CANARY-token", "access_token")
				require.Error(t, err)
				require.NotContains(t, err.Error(), "CANARY")
			}
		}
	}
}

func TestATokenOfAReplyIsNotPrinted(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	in, ep := integrationAt(p)
	r := newTokenEndpoint(p.Transport()).refresh(context.Background(), in, ep, p.Issue("alice").Refresh)
	require.Equal(t, granted, r.class)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", r.token)
	require.NotContains(t, log.String()+fmt.Sprintf("%v %+v %s", r.token, r.token, r.token), "CANARY")
}
