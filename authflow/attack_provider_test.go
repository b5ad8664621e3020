package authflow

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// The provider of one integration passes the browser on to another's, so that a code of the honest one reaches it (RFC 9700
// section 4.4). The codes of each go to its own token endpoint or nowhere, whichever way the two are mixed up.
func TestC6ACodeGoesToNoOtherProvider(t *testing.T) {
	const honest = "https://idp.example"
	g := newGround(t, consentSetup{
		provider: authflowtest.Config{Issuer: honest},
		change:   func(in *Integration) { in.Issuer = honest },
	})
	victim := g.newBrowser()
	evilLink, link := g.linkFor(tokenstore.Slot{Integration: "Evil", Org: "acme"}), g.linkFor(acme)
	before := g.state()

	// relayed is where the victim's browser ends who wants to connect Evil and is sent to the honest provider by it.
	relayed := func(redirectURI string) string {
		asked := mustParse(t, victim.click(evilLink))
		return g.visit(victim, with(t, g.provider.AuthorizationURL+"?"+asked.RawQuery,
			"client_id", g.provider.ClientID(), "redirect_uri", redirectURI))
	}
	graphs, evils := RedirectURI(g.public, "Graph"), RedirectURI(g.public, "Evil")

	// The honest provider knows Graph's redirect URI alone: the answer arrives where the consent did not begin.
	got := relayed(graphs)
	consents := g.dump("s")
	g.refused(victim, got, http.StatusBadRequest, "This answer cannot be used")
	require.Equal(t, consents, g.dump("s"), "not spent")

	// It takes any redirect URI of ours: the answer names another issuer than Evil's, and so does one without the name.
	g.refused(victim, relayed(evils), http.StatusBadRequest, "This answer comes from somebody else")
	g.refused(victim, with(t, relayed(evils), "iss", ""), http.StatusBadRequest, "This answer comes from somebody else")

	// The other way round, an answer of Evil's to the honest integration, also one that is an error: it denies nothing.
	for _, spoil := range [][]string{{"iss", "https://evil.example"}, {"iss", honest + "/"}, {"iss", "HTTPS://idp.example"}, {"iss", ""},
		{"iss", "https://evil.example", "code", "", "error", "access_denied"}} {
		g.refused(victim, with(t, g.consent(victim, link), spoil...), http.StatusBadRequest, "This answer comes from somebody else")
	}
	// A path is not enough to move a consent from one integration to the other.
	moved := strings.Replace(g.consent(victim, link), "/Graph?", "/Evil?", 1)
	g.refused(victim, moved, http.StatusBadRequest, "This answer cannot be used")
	require.Equal(t, before.rows, g.dump("r"))
	require.Equal(t, before.posts, g.posts(), "neither provider was asked for anything")

	// A reload that sends codes elsewhere does not do so with those of before.
	callback := g.consent(victim, link)
	lured := *g.graph
	lured.Resolve = func(tokenstore.Org) (Endpoints, error) {
		return Endpoints{AuthorizationURL: g.provider.AuthorizationURL, TokenURL: g.hostile.TokenURL}, nil
	}
	for _, b := range g.replicas {
		require.NoError(t, b.SetIntegrations([]*Integration{&lured, g.evil}))
	}
	g.refused(victim, callback, http.StatusBadRequest, "The integration has changed meanwhile")
	require.Equal(t, before.posts, g.posts())
	for _, b := range g.replicas {
		require.NoError(t, b.SetIntegrations([]*Integration{g.graph, g.evil}))
	}
	g.connect(victim, acme)
	require.Zero(t, g.hostile.Count(""))
}

// astray are parameters by which providers, or whoever writes into the browser's address bar, would tell where to go on. We
// read none of them, which refuses more than a list of allowed hosts would.
func astray(target string) url.Values {
	host := mustParseURL(target).Host
	return url.Values{
		"accounts-server": {target}, "token_url": {target}, "token_endpoint": {target}, "location": {host}, "domain": {host},
		"api_domain": {target}, "instance_url": {target}, "shop": {host}, "server": {target}, "client_secret": {"CANARY-planted"},
		"redirect_uri": {target}, "grant_type": {"refresh_token"}, "code_verifier": {strings.Repeat("v", 43)}, "client_id": {"client-9"},
		"realm_id": {"CANARY/../../realm"}, "tenant": {"CANARY-tenant"}, "entity_id": {"CANARY.evil.example"}, "vars.region": {"CANARY"},
		"scope": {"CANARY-everything"}, "org": {"mallory"}, "id_token": {"CANARY"}, "access_token": {"CANARY"}, "refresh_token": {"CANARY"},
	}
}

func mustParseURL(raw string) *url.URL {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err) // of a test's own
	}
	return u
}

// requireExchange asserts what a code exchange of Graph consists of: nothing but what is ours and the code.
func (g *ground) requireExchange(post authflowtest.Post, code string) {
	g.t.Helper()
	require.Empty(g.t, post.Query)
	require.Empty(g.t, post.Tenant)
	require.ElementsMatch(g.t, []string{"grant_type", "code", "redirect_uri", "client_id", "client_secret", "code_verifier"},
		slices.Collect(maps.Keys(post.Form)))
	require.Equal(g.t, "authorization_code", post.GrantType)
	require.Equal(g.t, code, post.Code)
	require.Equal(g.t, g.provider.ClientID(), post.Form.Get("client_id"))
	require.Equal(g.t, RedirectURI(g.public, "Graph"), post.Form.Get("redirect_uri"))
}

// The client secret and the code are POSTed to the configured token endpoint, whatever the callback's query names, and not
// beyond it where the endpoint answers a redirect.
func TestC7TheCallbackNamesNoEndpoint(t *testing.T) {
	g := newGround(t, consentSetup{})
	b := g.newBrowser()
	before := g.posts()
	callback := g.consent(b, g.linkFor(acme))
	sent := b.get(callback + "&" + astray(g.hostile.TokenURL).Encode())
	require.Equal(t, http.StatusSeeOther, sent.status, "unknown parameters are ignored (RFC 6749 section 4.1.2)")
	require.Equal(t, before+1, g.posts())
	g.requireExchange(g.provider.Posts()[before], mustParse(t, callback).Query().Get("code"))
	require.NotContains(t, b.get(sent.location).body, "CANARY")

	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		callback := g.consent(b, g.linkFor(acme))
		g.provider.Misbehave(authflowtest.Redirect(status, g.hostile.TokenURL))
		kept := g.dump("r")
		g.refused(b, callback, http.StatusBadGateway, "The provider did not complete the consent")
		require.Equal(t, kept, g.dump("r"))
	}
	require.Zero(t, g.hostile.Count(""))
	require.Empty(t, append(g.hostile.Strays(), g.provider.Strays()...))
}

// A token answer may name where the API is, or what to do next: nothing of it is kept, and the next refresh goes where the
// configuration says. Where requests go is shown with the program itself in cmd/bifrost.
func TestC8TheTokenAnswerNamesNoUpstream(t *testing.T) {
	g := newGround(t, consentSetup{})
	b := g.newBrowser()
	callback := g.consent(b, g.linkFor(acme))
	g.provider.Misbehave(authflowtest.Behaviour{Rewrite: func(a *authflowtest.Answer) {
		for name := range astray(g.hostile.TokenURL) {
			if !slices.Contains([]string{"access_token", "refresh_token", "scope", "id_token"}, name) {
				authflowtest.Member(name, `"`+g.hostile.TokenURL+`"`).Rewrite(a)
			}
		}
		authflowtest.Member("resource_server", `{"url":"`+g.hostile.APIURL+`"}`).Rewrite(a)
	}})
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
	rec := g.stored(acme)
	require.Empty(t, rec.Extra)
	require.Equal(t, fingerprint(g.graph, Endpoints{TokenURL: g.provider.TokenURL}), rec.Client)

	connection, err := g.broker.Refresh(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, Active, connection.Status)
	require.Equal(t, 1, g.provider.Count("refresh_token"))
	require.Zero(t, g.hostile.Count(""))
	require.Empty(t, g.hostile.Sightings())
}

// What a tenant could choose in the browser (a tenant's name, the values of placeholders) changes neither where the browser is sent
// nor what is exchanged or stored. The one such name that we read, QuickBooks' realmId, has its pattern, and tells accounts apart.
func TestC9TheBrowserChoosesNoTenant(t *testing.T) {
	g := newGround(t, consentSetup{change: func(in *Integration) {
		resolve := in.Resolve
		in.Resolve = func(org tokenstore.Org) (Endpoints, error) {
			ep, err := resolve(org)
			ep.AuthorizationURL += "?tenant=" + string(org)
			ep.AuthorizationParams = map[string]string{"prompt": "consent"}
			return ep, err
		}
	}})
	b, link := g.newBrowser(), g.linkFor(acme)
	plain := mustParse(t, b.click(link))
	planted := astray("https://evil.example/")
	planted.Set("ticket", mustParse(t, link).Query().Get("ticket"))
	for _, got := range []seen{
		b.do(http.MethodPost, link+"&"+astray("https://evil.example/").Encode(), nil),
		b.do(http.MethodPost, link, planted),
	} {
		require.Equal(t, http.StatusSeeOther, got.status, got.body)
		require.NotContains(t, got.location, "CANARY")
		asked, usual := mustParse(t, got.location).Query(), plain.Query()
		for _, once := range []string{"state", "code_challenge"} {
			require.Len(t, asked[once], 1)
			asked.Del(once)
			usual.Del(once)
		}
		require.Equal(t, usual, asked)
		require.Equal(t, plain.Host, mustParse(t, got.location).Host)
	}
	require.NotContains(t, b.get(link+"&"+astray("https://evil.example/").Encode()).body, "CANARY")

	callback := g.consent(b, link)
	untouched := g.state()
	for _, realm := range []string{"CANARY", "1/../2", "1 2", "-1", "0x1", strings.Repeat("1", 21), "１２", "1\n2", "1&realmId=2", "${CANARY}"} {
		g.refused(b, callback+"&realmId="+strings.ReplaceAll(url.QueryEscape(realm), "%26realmId%3D", "&realmId="), http.StatusBadRequest, "This answer cannot be used")
	}
	g.requireUntouched(untouched)
	before := g.posts()
	sent := b.get(callback + "&" + astray("https://evil.example/").Encode())
	require.Equal(t, http.StatusSeeOther, sent.status)
	g.requireExchange(g.provider.Posts()[before], mustParse(t, callback).Query().Get("code"))
	require.NotContains(t, b.get(sent.location).body, "CANARY")
	require.Empty(t, g.stored(acme).Extra)
	require.Nil(t, g.stored(mallory))
}
