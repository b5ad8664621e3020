package authflow

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAuthorizationURL(t *testing.T) {
	going := consent{
		Verifier:    "verifier-verifier-verifier-verifier-verifier",
		RedirectURI: "https://bifrost.example/pre/oauth/callback/Graph",
	}
	in := &Integration{ClientID: "client", Scopes: []string{"offline_access", "Users.Read"}, Audience: "https://api.example"}
	ep := Endpoints{
		AuthorizationURL:    "https://idp.example/o/authorize?tenant=a%2Fb&state=planted&prompt=none&client%5Fid=planted",
		AuthorizationParams: map[string]string{"prompt": "consent", "access_type": "offline", "state": "configured"},
	}
	raw, err := going.authorizationURL(in, ep, "STATE")
	require.NoError(t, err)

	u, err := url.Parse(raw)
	require.NoError(t, err)
	require.Equal(t, "https://idp.example/o/authorize", u.Scheme+"://"+u.Host+u.Path)
	require.True(t, strings.HasPrefix(u.RawQuery, "tenant=a%2Fb&"), "a query that is there is kept, as it is")
	require.True(t, strings.HasSuffix(u.RawQuery, "&access_type=offline&prompt=consent"), "configured parameters come last")
	challenge := sha256.Sum256([]byte(going.Verifier))
	require.Equal(t, url.Values{
		"tenant":                {"a/b"},
		"response_type":         {"code"},
		"client_id":             {"client"},
		"redirect_uri":          {going.RedirectURI},
		"scope":                 {"offline_access Users.Read"},
		"state":                 {"STATE"},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
		"audience":              {"https://api.example"},
		"prompt":                {"consent"},
		"access_type":           {"offline"},
	}, u.Query(), "each exactly once")
}

func TestAuthorizationURLWithoutPKCE(t *testing.T) {
	raw, err := consent{RedirectURI: "https://b.example/cb"}.authorizationURL(
		&Integration{ClientID: "client"}, Endpoints{AuthorizationURL: "https://idp.example/authorize?"}, "STATE")
	require.NoError(t, err)

	u, err := url.Parse(raw)
	require.NoError(t, err)
	require.Equal(t, url.Values{
		"response_type": {"code"}, "client_id": {"client"}, "redirect_uri": {"https://b.example/cb"}, "state": {"STATE"},
	}, u.Query())
}

func TestAuthorizationURLThatIsNone(t *testing.T) {
	_, err := consent{}.authorizationURL(&Integration{ClientID: "client"}, Endpoints{AuthorizationURL: "https://%zz/CANARY"}, "s")
	require.Error(t, err)
	require.NotContains(t, err.Error(), "CANARY")
}

func TestSecretsAreLongAndDiffer(t *testing.T) {
	one, other := newSecret(), newSecret()
	require.NotEqual(t, one, other)
	bits, err := base64.RawURLEncoding.DecodeString(one)
	require.NoError(t, err)
	require.Len(t, bits, 32, "256 bits")
}
