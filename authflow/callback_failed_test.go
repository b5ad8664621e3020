package authflow

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// connectOnce makes a connection, so that a test can see that it stays as it is.
func (e *consentEnv) connectOnce() *tokenstore.Record {
	e.t.Helper()
	b := e.newBrowser()
	require.Equal(e.t, http.StatusSeeOther, b.get(b.consent(e.link())).status)
	return e.stored(acme)
}

func (e *consentEnv) requireUnchanged(before *tokenstore.Record) {
	e.t.Helper()
	after := e.stored(acme)
	require.NotNil(e.t, after)
	require.Equal(e.t, before.Version(), after.Version())
	require.Equal(e.t, before.Failure, after.Failure)
}

func TestDeniedConsentChangesNothing(t *testing.T) {
	for given, shown := range map[string]string{
		"access_denied":           "access_denied",
		"temporarily_unavailable": "temporarily_unavailable",
		"<script>CANARY":          "other",
	} {
		t.Run(shown, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{})
			before := e.connectOnce()
			b, link := e.newBrowser(), e.link()
			callback := with(t, b.consent(link), "code", "", "error", given, "error_description", "CANARY-description <b>")
			require.True(t, e.pending())

			page := b.get(callback)
			require.Equal(t, http.StatusForbidden, page.status)
			require.Contains(t, page.body, "<code>"+shown+"</code>")
			require.NotContains(t, page.body, "CANARY")
			require.NotContains(t, e.logs.String(), "CANARY")
			require.Equal(t, 1, e.exchanges(), "that of the first connection")
			e.requireUnchanged(before)
			require.False(t, e.pending())
			require.Equal(t, 1, e.count(resultDenied))
			require.Contains(t, e.logs.String(), `"msg":"consent denied","integration":"Graph","result":"denied","org":"acme","by":"ops","reason":"`+shown+`"`)

			require.Equal(t, http.StatusBadRequest, b.get(callback).status, "the state is spent")
			require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status, "the link is not")
		})
	}
}

func TestFailedExchangeChangesNothingAndTheLinkGoesOn(t *testing.T) {
	for name, behaviour := range map[string]authflowtest.Behaviour{
		"a refusal":               authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant"),
		"a refused client":        authflowtest.OAuthError(http.StatusUnauthorized, "invalid_client"),
		"a page":                  authflowtest.HTML(http.StatusOK),
		"a fault":                 authflowtest.Status(http.StatusBadGateway, ""),
		"a lost answer":           authflowtest.DropAfter(),
		"another type of token":   authflowtest.Member("token_type", `"mac"`),
		"an answer with no token": authflowtest.Without("access_token"),
	} {
		t.Run(name, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{})
			before := e.connectOnce()
			b, link := e.newBrowser(), e.link()
			callback := b.consent(link)
			e.provider.Misbehave(behaviour)

			page := b.get(callback)
			require.Equal(t, http.StatusBadGateway, page.status)
			require.NotContains(t, page.body, "CANARY")
			require.NotContains(t, e.logs.String(), "CANARY")
			require.Equal(t, 2, e.exchanges(), "the code was POSTed once")
			e.requireUnchanged(before)
			require.False(t, e.pending())
			require.Equal(t, 1, e.count(resultExchange))

			require.Equal(t, http.StatusBadRequest, b.get(callback).status, "the state is spent")
			require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status, "the same link connects")
			require.NotEqual(t, before.Grant, e.stored(acme).Grant)
			require.Equal(t, http.StatusForbidden, b.get(link).status, "and is spent then")
		})
	}
}

func TestConsentWithAnotherTokenTypeNeedsAFormat(t *testing.T) {
	e := newConsentEnv(t, consentSetup{
		provider: authflowtest.Config{TokenType: "bot"},
		change:   func(in *Integration) { in.Format = func(access string) string { return "Bot " + access } },
	})
	b := e.newBrowser()
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(e.link())).status)
}

func TestCallbackWithTheStoreDownExchangesNothing(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	link := e.link()
	for _, failing := range []string{"peek consent:", "take consent:", "take ticket:"} {
		callback := b.consent(link)
		e.store.failing(unavailable(failing))
		page := b.get(callback)
		e.store.failing(nil)
		require.Equal(t, http.StatusServiceUnavailable, page.status, failing)
		require.NotEmpty(t, page.header.Get("Retry-After"))
		require.Zero(t, e.exchanges(), failing)
		require.Nil(t, e.stored(acme))
	}
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status)
}

func TestGrantThatCannotBeStored(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	before := e.connectOnce()
	b, link := e.newBrowser(), e.link()
	callback := b.consent(link)
	e.store.failing(func(op, _ string) error {
		if op == "save" {
			return tokenstore.ErrUnreadable // which nobody waits for
		}
		return nil
	})
	page := b.get(callback)
	e.store.failing(nil)
	require.Equal(t, http.StatusServiceUnavailable, page.status)
	require.Equal(t, 1, e.count(resultNotSaved))
	e.requireUnchanged(before)
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status, "the link is not spent")
}

// A link that runs out while its holder is at the provider still connects: the consent was begun in time.
func TestLinkThatExpiresDuringTheConsent(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b, link := e.newBrowser(), e.link()
	callback := b.consent(link)
	expired := ticket{Slot: acme, By: "ops", Expires: time.Now().Add(-time.Second)}
	require.NoError(t, e.broker.shelveTicket(t.Context(), mustParse(t, link).Query().Get("ticket"), expired))

	require.Equal(t, http.StatusForbidden, b.get(link).status, "nobody can begin another")
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
}

func TestReloadDuringAConsent(t *testing.T) {
	for name, change := range map[string]func(*consentEnv, *Integration){
		"another client":         func(_ *consentEnv, in *Integration) { in.ClientID = "client-2" },
		"client_credentials now": func(_ *consentEnv, in *Integration) { in.Flow = ClientCredentials },
		"another token endpoint": func(e *consentEnv, in *Integration) {
			in.Resolve = func(tokenstore.Org) (Endpoints, error) {
				return Endpoints{AuthorizationURL: e.provider.AuthorizationURL, TokenURL: e.provider.BaseURL + "/evil/token"}, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{})
			b, link := e.newBrowser(), e.link()
			callback := b.consent(link)
			changed := *e.graph
			change(e, &changed)
			require.NoError(t, e.broker.SetIntegrations([]*Integration{&changed}))

			require.Equal(t, http.StatusBadRequest, b.get(callback).status)
			require.Zero(t, e.exchanges())
			require.Nil(t, e.stored(acme))
			require.False(t, e.pending())

			require.NoError(t, e.broker.SetIntegrations([]*Integration{e.graph}))
			require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status, "the link is not spent")
		})
	}
}

// The browser closes its window while the code is being exchanged: the provider has spent the code, so the grant is kept.
func TestBrowserLeavesDuringTheExchange(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	callback := b.consent(e.link())
	gate := authflowtest.NewGate()
	e.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})

	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, callback, nil)
	require.NoError(t, err)
	left := make(chan error, 1)
	go func() { _, err := b.client.Do(req); left <- err }() // ends with leave
	<-gate.Arrived()
	leave()
	require.Error(t, <-left)
	gate.Release()
	require.Eventually(t, func() bool { return e.stored(acme) != nil }, waitLong, waitStep)
}
