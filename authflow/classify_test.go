package authflow

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// TestClassification has one row per kind of answer to a refresh. once is the class where the refresh token is rotating or
// one-time, if it differs.
func TestClassification(t *testing.T) {
	entra := func(numbers string) authflowtest.Behaviour {
		return authflowtest.Raw(400, "application/json", `{"error":"invalid_grant","error_codes":`+numbers+`,"suberror":"CANARY"}`)
	}
	json := func(status int, body string) authflowtest.Behaviour {
		return authflowtest.Raw(status, "application/json", body)
	}
	cutForm := authflowtest.Form()
	cutForm.Cut = true
	differs := func(c class) *class { return &c }
	for name, c := range map[string]struct {
		answer authflowtest.Behaviour
		class  class
		once   *class
		code   string
		retry  time.Duration
	}{
		"an honest answer":                {authflowtest.Behaviour{}, granted, nil, "", 0},
		"JSON labelled text/plain":        {authflowtest.Relabel("text/plain"), granted, nil, "", 0},
		"JSON labelled HTML":              {authflowtest.Relabel("text/html"), granted, nil, "", 0},
		"a form":                          {authflowtest.Form(), granted, nil, "", 0},
		"a byte order mark":               {authflowtest.Wrap("\ufeff", ""), granted, nil, "", 0},
		"space before":                    {authflowtest.Wrap("\r\n ", ""), granted, nil, "", 0},
		"bytes after":                     {authflowtest.Wrap("", "\n<!-- served by 7 -->"), granted, nil, "", 0},
		"1 MiB after":                     {authflowtest.Wrap("", string(make([]byte, 1<<20))), granted, nil, "", 0},
		"a second object after":           {authflowtest.Wrap("", `{"access_token":"x"}`), granted, nil, "", 0},
		"a numeric refresh token":         {authflowtest.NumericRefresh(), granted, nil, "", 0},
		"no refresh token":                {authflowtest.Without("refresh_token"), granted, nil, "", 0},
		"a null refresh token":            {authflowtest.Member("refresh_token", "null"), granted, nil, "", 0},
		"no token_type":                   {authflowtest.Without("token_type"), granted, nil, "", 0},
		"token_type BEARER":               {authflowtest.Member("token_type", `"BEARER"`), granted, nil, "", 0},
		"expires_in false":                {authflowtest.Member("expires_in", "false"), granted, nil, "", 0},
		"an empty error beside the token": {authflowtest.Member("error", `""`), granted, nil, "", 0},
		"an unknown member twice":         {authflowtest.Wrap(`{"a":1,"a":2}`, ""), ambiguous, nil, "other", 0},

		"token_type bot":                 {authflowtest.Member("token_type", `"bot"`), ambiguous, nil, "other", 0},
		"an empty access token":          {authflowtest.Member("access_token", `""`), ambiguous, nil, "other", 0},
		"an access token with CR LF":     {authflowtest.Member("access_token", `"CANARY\r\nX: y"`), ambiguous, nil, "other", 0},
		"an access token with a space":   {authflowtest.Member("access_token", `"CANARY a"`), ambiguous, nil, "other", 0},
		"an access token object":         {authflowtest.Member("access_token", `{"a":"CANARY"}`), ambiguous, nil, "other", 0},
		"no access token":                {authflowtest.Without("access_token"), ambiguous, nil, "other", 0},
		"a refresh token with CR LF":     {authflowtest.Member("refresh_token", `"CANARY\r\n"`), ambiguous, nil, "other", 0},
		"a refresh token object":         {authflowtest.Member("refresh_token", `{}`), ambiguous, nil, "other", 0},
		"the access token twice":         {authflowtest.Duplicate("access_token", `"CANARY"`), ambiguous, nil, "other", 0},
		"the access token in other case": {authflowtest.Duplicate("Access_Token", `"CANARY"`), ambiguous, nil, "other", 0},
		"a token and an error":           {authflowtest.Member("error", `"invalid_grant"`), ambiguous, nil, "invalid_grant", 0},
		"truncated JSON":                 {authflowtest.Truncate(40), ambiguous, nil, "other", 0},
		"a body cut short":               {authflowtest.CutBody(), ambiguous, nil, "other", 0},
		"a form cut short":               {cutForm, ambiguous, nil, "other", 0},
		"an empty 200":                   {json(200, ""), ambiguous, nil, "other", 0},
		"a 204":                          {authflowtest.Status(204, ""), ambiguous, nil, "other", 0},
		"an array":                       {json(200, `["CANARY"]`), ambiguous, nil, "other", 0},
		"HTML with 200":                  {authflowtest.HTML(200), ambiguous, nil, "other", 0},
		"1 MiB before":                   {authflowtest.Wrap(strings.Repeat(" ", 1<<20), ""), ambiguous, nil, "other", 0},
		"ok false with 200":              {json(200, `{"ok":false,"error":"internal_error"}`), ambiguous, nil, "other", 0},
		"server_error with 200":          {authflowtest.OAuthError(200, "server_error"), ambiguous, nil, "server_error", 0},

		"invalid_grant":              {authflowtest.OAuthError(400, "invalid_grant"), dead, nil, "invalid_grant", 0},
		"invalid_grant with 401":     {authflowtest.OAuthError(401, "invalid_grant"), dead, nil, "invalid_grant", 0},
		"invalid_grant with 403":     {authflowtest.OAuthError(403, "invalid_grant"), dead, nil, "invalid_grant", 0},
		"invalid_grant with 200":     {authflowtest.OAuthError(200, "invalid_grant"), dead, nil, "invalid_grant", 0},
		"invalid_grant in a form":    {authflowtest.Raw(200, "text/plain", "error=invalid_grant&error_description=CANARY"), dead, nil, "invalid_grant", 0},
		"interaction_required":       {authflowtest.OAuthError(400, "interaction_required"), dead, nil, "interaction_required", 0},
		"consent_required":           {authflowtest.OAuthError(400, "consent_required"), dead, nil, "consent_required", 0},
		"another Entra number":       {entra("[700082]"), dead, nil, "invalid_grant", 0},
		"Entra's throttling":         {entra("[50196]"), transient, nil, "invalid_grant", 5 * time.Minute},
		"Entra's overload as string": {entra(`[1,"90033"]`), transient, nil, "invalid_grant", 5 * time.Minute},

		"invalid_client":           {authflowtest.OAuthError(401, "invalid_client"), rejectedClient, nil, "invalid_client", 0},
		"invalid_client with 400":  {authflowtest.OAuthError(400, "invalid_client"), rejectedClient, nil, "invalid_client", 0},
		"invalid_client with 200":  {authflowtest.OAuthError(200, "invalid_client"), rejectedClient, nil, "invalid_client", 0},
		"unauthorized_client":      {authflowtest.OAuthError(400, "unauthorized_client"), rejectedClient, nil, "unauthorized_client", 0},
		"login_required":           {authflowtest.OAuthError(400, "login_required"), transient, nil, "login_required", 0},
		"invalid_scope":            {authflowtest.OAuthError(400, "invalid_scope"), transient, nil, "invalid_scope", 0},
		"invalid_request":          {authflowtest.OAuthError(400, "invalid_request"), transient, nil, "invalid_request", 0},
		"unsupported_grant_type":   {authflowtest.OAuthError(400, "unsupported_grant_type"), transient, nil, "unsupported_grant_type", 0},
		"slow_down with 200":       {authflowtest.OAuthError(200, "slow_down"), transient, nil, "slow_down", 0},
		"an unlisted error":        {authflowtest.OAuthError(400, "CANARY-error"), transient, nil, "other", 0},
		"an upper-case error":      {authflowtest.OAuthError(400, "INVALID_GRANT"), transient, nil, "other", 0},
		"an error object":          {json(400, `{"error":{"code":"invalid_grant","message":"CANARY"}}`), transient, nil, "other", 0},
		"a 401 without OAuth body": {authflowtest.Status(401, ""), transient, nil, "other", 0},
		"a 404 page":               {authflowtest.HTML(404), transient, nil, "other", 0},
		"a firewall's 403":         {authflowtest.HTML(403), transient, nil, "other", 0},
		"a redirect":               {authflowtest.Redirect(307, "/elsewhere"), transient, nil, "other", 0},
		"a redirect with a token":  {authflowtest.Raw(302, "application/json", `{"access_token":"CANARY"}`), transient, nil, "other", 0},

		"429":                            {authflowtest.Status(429, "7"), transient, nil, "other", 7 * time.Second},
		"429 with invalid_grant":         {authflowtest.OAuthError(429, "invalid_grant"), transient, nil, "invalid_grant", 0},
		"408":                            {authflowtest.Status(408, ""), transient, differs(ambiguous), "other", 0},
		"425":                            {authflowtest.Status(425, ""), transient, differs(ambiguous), "other", 0},
		"500":                            {authflowtest.Status(500, ""), transient, differs(ambiguous), "other", 0},
		"500 with invalid_grant":         {authflowtest.OAuthError(500, "invalid_grant"), transient, differs(ambiguous), "invalid_grant", 0},
		"503 with Retry-After":           {authflowtest.Status(503, "3600"), transient, differs(ambiguous), "other", 10 * time.Minute},
		"503 temporarily_unavailable":    {authflowtest.OAuthError(503, "temporarily_unavailable"), transient, differs(ambiguous), "temporarily_unavailable", 0},
		"a status that nobody has heard": {authflowtest.Status(799, ""), ambiguous, nil, "other", 0},
		"dropped before processing":      {authflowtest.DropBefore(), ambiguous, nil, "other", 0},
		"dropped after processing":       {authflowtest.DropAfter(), ambiguous, nil, "other", 0},
	} {
		for _, refresh := range []RefreshClass{Reusable, Rotating, OneTime} {
			t.Run(name+", "+string(refresh), func(t *testing.T) {
				p := authflowtest.NewProvider(authflowtest.Config{Refresh: authflowtest.Refresh(refresh)})
				in, ep := integrationAt(p)
				in.Refresh = refresh
				p.Misbehave(c.answer)
				want := c.class
				if c.once != nil && refresh != Reusable {
					want = *c.once
				}

				r := newTokenEndpoint(p.Transport()).refresh(t.Context(), in, ep, p.Issue("alice", "users").Refresh)
				require.Equal(t, want.String(), r.class.String(), r.text)
				require.Equal(t, c.code, r.code)
				require.Equal(t, c.retry, r.retryAfter)
				require.Equal(t, want == granted, r.text == "", "a reason for every failure")
				require.Equal(t, want == granted, r.token.Access != "", "a token with nothing but a grant")
				require.NotContains(t, r.text, "CANARY")
				require.Equal(t, 1, p.Count(""))
				require.Empty(t, p.Strays())
			})
		}
	}
}

func TestGrantedTokensAreTheProvidersOwn(t *testing.T) {
	for name, b := range map[string]authflowtest.Behaviour{
		"as JSON": {}, "as a form": authflowtest.Form(), "mislabelled": authflowtest.Relabel("text/plain"),
		"with a number": authflowtest.NumericRefresh(),
	} {
		p := authflowtest.NewProvider(authflowtest.Config{Refresh: authflowtest.OneTime})
		in, ep := integrationAt(p)
		p.Misbehave(b)
		first := p.Issue("alice", "users", "mail")
		r := newTokenEndpoint(p.Transport()).refresh(t.Context(), in, ep, first.Refresh)
		now, _ := p.Newest(first.Grant)
		require.Equal(t, now.Access, r.token.Access, name)
		require.Equal(t, now.Refresh, r.token.Refresh, name)
		require.Equal(t, []string{"users", "mail"}, r.scopes, name)
	}
}

func TestOtherTokenTypesNeedAFormat(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{TokenType: "bot"})
	in, ep := integrationAt(p)
	in.Format = func(access string) string { return "Bearer " + access }
	r := newTokenEndpoint(p.Transport()).refresh(t.Context(), in, ep, p.Issue("alice").Refresh)
	require.Equal(t, granted, r.class, r.text)
	require.Equal(t, "bot", r.token.Type)
}

func TestA5xxToAnExchangeIsAmbiguous(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	in, ep := integrationAt(p)
	te := newTokenEndpoint(p.Transport())
	p.MisbehaveAlways(authflowtest.Status(http.StatusBadGateway, ""))
	require.Equal(t, ambiguous, te.exchange(t.Context(), in, ep, "code", consent{RedirectURI: testRedirectURI}).class)
	require.Equal(t, transient, te.mint(t.Context(), in, ep).class, "minting again harms nobody")
}
