package authflow

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// accounts is an env whose provider signs in as whoever user says, with an ID token and a revocation endpoint.
func accounts(t *testing.T, user *string, setup consentSetup) *consentEnv {
	t.Helper()
	setup.revokes = true
	setup.provider.IDToken = true
	setup.provider.Consent = func(http.ResponseWriter, *http.Request) (string, bool) { return *user, true }
	return newConsentEnv(t, setup)
}

// consents connects acme, or has it wait, and returns the page that is shown then.
func (e *consentEnv) consents() seen {
	e.t.Helper()
	b := e.newBrowser()
	sent := b.get(b.consent(e.link()))
	require.Equal(e.t, http.StatusSeeOther, sent.status, sent.body)
	return b.get(sent.location)
}

// waits returns what waits for acme.
func (e *consentEnv) waits() *Awaiting {
	e.t.Helper()
	con, err := e.broker.Connection(e.t.Context(), acme)
	require.NoError(e.t, err)
	return con.Awaiting
}

// userOf returns whose access token acme has, and whether the provider still takes it.
func (e *consentEnv) userOf(rec *tokenstore.Record) (user string, alive bool) {
	e.t.Helper()
	require.NotNil(e.t, rec)
	issued, known := e.provider.Lookup(rec.Token.Access)
	require.True(e.t, known)
	return issued.User, issued.Alive
}

// pending makes a connection of alice's and has mallory's consent wait.
func pendingAccounts(t *testing.T, setup consentSetup) (e *consentEnv, user *string) {
	t.Helper()
	user = new("alice")
	e = accounts(t, user, setup)
	e.consents()
	*user = "mallory"
	require.Contains(t, e.consents().body, "An operator has to confirm this")
	return e, user
}

// revoked waits until the background is quiet and returns how many grants were given back.
func (e *consentEnv) revoked() int {
	e.t.Helper()
	require.NoError(e.t, e.broker.Wait(e.t.Context()))
	return len(e.provider.Revocations())
}

func TestAReconnectByTheSameAccountReplacesTheGrant(t *testing.T) {
	e := accounts(t, new("alice"), consentSetup{})
	require.Contains(t, e.consents().body, "Graph is connected")
	before := e.stored(acme)
	require.Contains(t, e.consents().body, "Graph is connected")
	require.NotEqual(t, before.Grant, e.stored(acme).Grant)
	require.Contains(t, e.logs.String(), `"reconnected":true`)
	require.Nil(t, e.waits())
}

// An organization that was reconnected under another account pointed to other data without anybody's word.
func TestAnotherAccountWaitsForAnOperator(t *testing.T) {
	user := new("alice")
	e := accounts(t, user, consentSetup{})
	e.consents()
	before := e.stored(acme)
	*user = "mallory"
	b, link := e.newBrowser(), e.link()
	sent := b.get(b.consent(link))
	require.Equal(t, http.StatusSeeOther, sent.status)
	page := b.get(sent.location).body
	require.Contains(t, page, "An operator has to confirm this")
	require.NotContains(t, page, "/integrations", "he came by a link")

	e.requireUnchanged(before)
	waits := e.waits()
	require.NotNil(t, waits)
	require.Equal(t, "ops", waits.By)
	require.WithinDuration(t, time.Now(), waits.Since, time.Minute)
	require.Equal(t, 1, e.count(resultAwaiting))
	require.NotContains(t, e.logs.String(), "CANARY")
	require.Equal(t, http.StatusOK, b.get(link).status, "the link is not spent: it may have been the wrong account")
	list, err := e.broker.Connections(t.Context(), "Graph")
	require.NoError(t, err)
	require.NotNil(t, list[1].Awaiting)

	con, err := e.broker.Confirm(t.Context(), acme, "", "ops")
	require.NoError(t, err)
	require.Nil(t, con.Awaiting)
	require.Equal(t, Active, con.Status)
	name, alive := e.userOf(e.stored(acme))
	require.Equal(t, "mallory", name)
	require.True(t, alive)
	require.Equal(t, http.StatusForbidden, b.get(link).status, "now it is")
	require.Zero(t, e.revoked())
	cred, err := e.broker.Token(t.Context(), acme)
	require.NoError(t, err)
	require.Contains(t, cred.Header(), e.stored(acme).Token.Access)

	_, err = e.broker.Confirm(t.Context(), acme, "", "ops")
	require.ErrorIs(t, err, ErrNotAwaiting)
	require.ErrorIs(t, e.broker.Reject(t.Context(), acme, "", "ops"), ErrNotAwaiting)
	_, alive = e.userOf(e.stored(acme))
	require.True(t, alive)
}

func TestARejectedAccountIsGivenBack(t *testing.T) {
	e, _ := pendingAccounts(t, consentSetup{})
	before := e.stored(acme)
	require.NoError(t, e.broker.Reject(t.Context(), acme, "", "ops"))
	require.Equal(t, 1, e.revoked())
	require.Nil(t, e.waits())
	e.requireUnchanged(before)
	name, alive := e.userOf(e.stored(acme))
	require.Equal(t, "alice", name)
	require.True(t, alive)
	_, err := e.broker.Confirm(t.Context(), acme, "", "ops")
	require.ErrorIs(t, err, ErrNotAwaiting)
}

func TestWhatMakesAWaitingConsentVoid(t *testing.T) {
	for name, change := range map[string]func(*consentEnv, *string){
		"a consent by the right account": func(e *consentEnv, user *string) { *user = "alice"; e.consents() },
		"a disconnect":                   func(e *consentEnv, _ *string) { require.NoError(e.t, e.broker.Disconnect(e.t.Context(), acme, "ops")) },
		"an import": func(e *consentEnv, _ *string) {
			_, err := e.broker.Import(e.t.Context(), acme, e.provider.Issue("alice", "Users.Read").Refresh, "ops")
			require.NoError(e.t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, user := pendingAccounts(t, consentSetup{})
			grant := e.stored(acme).Grant
			change(e, user)
			require.Nil(t, e.waits())
			want := 1 // mallory's
			if rec := e.stored(acme); rec == nil {
				want = 2 // and the connection's own
			} else {
				require.NotEqual(t, grant, rec.Grant)
				name, alive := e.userOf(rec)
				require.Equal(t, "alice", name)
				require.True(t, alive)
			}
			require.Equal(t, want, e.revoked(), "at once, and not when somebody asks")
			_, err := e.broker.Confirm(t.Context(), acme, "", "ops")
			require.ErrorIs(t, err, ErrNotAwaiting)
		})
	}
}

// The store remembers a candidate that nobody has cleared away, of a grant that is the connection's no more.
func TestACandidateOfAnEarlierGrantIsNeverStored(t *testing.T) {
	e, user := pendingAccounts(t, consentSetup{})
	raw, err := e.store.Peek(t.Context(), candidateID(acme))
	require.NoError(t, err)
	*user = "alice"
	e.consents()
	before := e.stored(acme)
	require.NoError(t, e.store.Put(t.Context(), candidateID(acme), raw[0], time.Hour))
	_, err = e.broker.Confirm(t.Context(), acme, "", "ops")
	require.ErrorIs(t, err, ErrNotAwaiting)
	require.ErrorContains(t, err, "has changed since")
	e.requireUnchanged(before)

	require.NoError(t, e.store.Put(t.Context(), candidateID(acme), raw[0], time.Hour))
	require.ErrorIs(t, e.broker.Reject(t.Context(), acme, "", "ops"), ErrNotAwaiting)
	e.requireUnchanged(before)

	given := e.revoked()
	require.NoError(t, e.store.Put(t.Context(), candidateID(acme), raw[0], time.Hour))
	require.Nil(t, e.waits(), "it is not shown either")
	require.Equal(t, given+1, e.revoked(), "and whoever looks gives it back")
	_, err = e.store.Take(t.Context(), candidateID(acme))
	require.ErrorIs(t, err, tokenstore.ErrNotFound)
}

// Somebody else with the link consented between the operator's look and his word, and was confirmed unseen.
func TestAnOperatorDecidesAboutWhatHeHasSeen(t *testing.T) {
	e, user := pendingAccounts(t, consentSetup{})
	before, seen := e.stored(acme), e.waits()
	*user = "eve"
	e.consents()
	_, err := e.broker.Confirm(t.Context(), acme, seen.ID, "ops")
	require.ErrorIs(t, err, ErrNotAwaiting)
	require.ErrorContains(t, err, "Another consent has come meanwhile")
	require.ErrorIs(t, e.broker.Reject(t.Context(), acme, seen.ID, "ops"), ErrNotAwaiting)
	e.requireUnchanged(before)
	now := e.waits()
	require.NotNil(t, now, "it waits on")
	require.NotEqual(t, seen.ID, now.ID)
	_, err = e.broker.Confirm(t.Context(), acme, now.ID, "ops")
	require.NoError(t, err)
	name, _ := e.userOf(e.stored(acme))
	require.Equal(t, "eve", name)
}

func TestAThirdAccountTakesTheSecondsPlace(t *testing.T) {
	e, user := pendingAccounts(t, consentSetup{})
	*user = "bob"
	e.consents()
	require.Equal(t, 1, e.revoked(), "mallory's")
	_, err := e.broker.Confirm(t.Context(), acme, "", "ops")
	require.NoError(t, err)
	name, alive := e.userOf(e.stored(acme))
	require.Equal(t, "bob", name)
	require.True(t, alive)
}

// Some providers revoke everything that an account has given us with any one of its tokens: a second consent by the account that
// waits revoked itself with the first.
func TestASecondConsentByTheWaitingAccountRevokesNothing(t *testing.T) {
	e, _ := pendingAccounts(t, consentSetup{})
	e.consents()
	require.NotNil(t, e.waits())
	require.Zero(t, e.revoked())

	require.NoError(t, e.broker.Disconnect(t.Context(), acme, "ops"))
	require.Equal(t, 2, e.revoked(), "alice's and mallory's")
	e, _ = pendingAccounts(t, consentSetup{})
	raw, err := e.store.Take(t.Context(), candidateID(acme))
	require.NoError(t, err)
	require.NoError(t, e.broker.Disconnect(t.Context(), acme, "ops"))
	require.NoError(t, e.store.Put(t.Context(), candidateID(acme), raw, time.Hour)) // it came at the same time
	e.consents()
	require.Equal(t, 1, e.revoked(), "alice's: mallory is the connection's account now")
}

// With the account of either side unknown nothing can be compared, and the reconnect goes through.
func TestAnUnknownAccountIsNotPinned(t *testing.T) {
	for name, claims := range map[string][2]map[string]any{
		"the old one": {{"sub": nil}, {}},
		"the new one": {{}, {"sub": nil}},
	} {
		t.Run(name, func(t *testing.T) {
			user := new("alice")
			e := accounts(t, user, consentSetup{provider: authflowtest.Config{Account: func(user string) authflowtest.Account {
				return authflowtest.Account{Claims: claims[map[string]int{"alice": 0, "mallory": 1}[user]]}
			}}})
			e.consents()
			*user = "mallory"
			require.Contains(t, e.consents().body, "Graph is connected")
			name, _ := e.userOf(e.stored(acme))
			require.Equal(t, "mallory", name)
		})
	}
}

// Whoever consents can change the request on its way to the provider: without openid there is no ID token, and without it no account
// was known and any of them went through.
func TestAConsentThatLeavesOutTheAskedForIDTokenWaits(t *testing.T) {
	user, without := "alice", map[string]any{}
	e := accounts(t, &user, consentSetup{
		change:   func(in *Integration) { in.Scopes = append(in.Scopes, "openid") },
		provider: authflowtest.Config{Account: func(string) authflowtest.Account { return authflowtest.Account{Claims: without} }},
	})
	e.consents()
	before := e.stored(acme)
	user, without = "mallory", map[string]any{"iss": nil, "sub": nil}
	require.Contains(t, e.consents().body, "An operator has to confirm this")
	e.requireUnchanged(before)
}

// What providers without an ID token name an account by.
func TestAccountsOfProvidersWithoutIDTokens(t *testing.T) {
	member := func(name string, value any) authflowtest.Account {
		return authflowtest.Account{Members: map[string]any{name: value}}
	}
	slack := func(team, enterprise any) authflowtest.Account {
		return authflowtest.Account{Members: map[string]any{"team": team, "enterprise": enterprise}}
	}
	id := func(v string) map[string]any { return map[string]any{"id": v, "name": "CANARY " + v} }
	realm := func(v string) authflowtest.Account { return authflowtest.Account{Callback: url.Values{"realmId": {v}}} }
	for name, tc := range map[string]struct {
		first, second authflowtest.Account
		waits         bool
	}{
		"one Slack workspace":                  {slack(id("T1"), nil), slack(id("T1"), nil), false},
		"another Slack workspace":              {slack(id("T1"), nil), slack(id("T2"), nil), true},
		"another Slack enterprise":             {slack(nil, id("E1")), slack(nil, id("E2")), true},
		"the same Slack team, another company": {slack(id("T1"), id("E1")), slack(id("T1"), id("E2")), true},
		"one Salesforce user": {
			member("id", "https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P"),
			member("id", "https://acme.my.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P"), false,
		},
		"another Salesforce organization": {
			member("id", "https://login.salesforce.com/id/00Dx0000000BV7z/005x00000012Q9P"),
			member("id", "https://login.salesforce.com/id/00Dx0000000XXXX/005x00000012Q9P"), true,
		},
		"an id that changes with every token": {member("id", "token-1"), member("id", "token-2"), false},
		"one QuickBooks company":              {realm("4620816365"), realm("4620816365"), false},
		"another QuickBooks company":          {realm("4620816365"), realm("99"), true},
	} {
		t.Run(name, func(t *testing.T) {
			account := tc.first
			e := newConsentEnv(t, consentSetup{provider: authflowtest.Config{Account: func(string) authflowtest.Account { return account }}})
			e.consents()
			before := e.stored(acme)
			account = tc.second
			e.consents()
			require.Equal(t, tc.waits, e.waits() != nil)
			require.Equal(t, tc.waits, before.Grant == e.stored(acme).Grant)
			require.NotContains(t, e.logs.String(), "CANARY")
		})
	}
}

func TestARealmThatIsNoneIsRefused(t *testing.T) {
	for _, realm := range []string{"12x", "-1", "123456789012345678901", "../1", "٣"} {
		e := newConsentEnv(t, consentSetup{})
		b := e.newBrowser()
		callback := b.consent(e.link())
		require.Equal(t, http.StatusBadRequest, b.get(with(t, callback, "realmId", realm)).status, realm)
		require.Equal(t, http.StatusBadRequest, b.get(callback+"&realmId=1&realmId=2").status, realm)
		require.Zero(t, e.exchanges())
		require.Equal(t, http.StatusSeeOther, b.get(callback).status, "nothing was spent")
	}
}

func TestADecisionWhileTheShelfIsAway(t *testing.T) {
	e, _ := pendingAccounts(t, consentSetup{})
	e.store.failing(unavailable("take candidate:"))
	_, err := e.broker.Confirm(t.Context(), acme, "", "ops")
	require.ErrorIs(t, err, ErrStore)
	require.ErrorIs(t, e.broker.Reject(t.Context(), acme, "", "ops"), ErrStore)
	e.store.failing(nil)
	_, err = e.broker.Confirm(t.Context(), acme, "", "ops")
	require.NoError(t, err)
}

// A decision about a consent that has been replaced took the new one away and put it back: for others nothing waited meanwhile, and
// one that came then was overwritten.
func TestADecisionAboutAnotherConsentLeavesWhatWaitsWhereItIs(t *testing.T) {
	e, _ := pendingAccounts(t, consentSetup{})
	e.store.failing(unavailable("take candidate:"))
	_, err := e.broker.Confirm(t.Context(), acme, "another", "ops")
	require.ErrorIs(t, err, ErrNotAwaiting)
	require.ErrorContains(t, err, "Another consent has come meanwhile")
	require.ErrorIs(t, e.broker.Reject(t.Context(), acme, "another", "ops"), ErrNotAwaiting)
	require.NotNil(t, e.waits())
}

func TestACandidateThatCannotBeKept(t *testing.T) {
	user := new("alice")
	e := accounts(t, user, consentSetup{})
	e.consents()
	before := e.stored(acme)
	*user = "mallory"
	b, link := e.newBrowser(), e.link()
	callback := b.consent(link)
	e.store.failing(unavailable("put candidate:"))
	require.Equal(t, http.StatusServiceUnavailable, b.get(callback).status)
	e.store.failing(nil)
	require.Equal(t, 1, e.count(resultNotSaved))
	e.requireUnchanged(before)
	require.Nil(t, e.waits())
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status, "the link is not spent")
}

func TestAConfirmationUnderAnotherClientIsVoid(t *testing.T) {
	e, _ := pendingAccounts(t, consentSetup{})
	before := e.stored(acme)
	changed := *e.graph
	changed.ClientID = "client-2"
	require.NoError(t, e.broker.SetIntegrations([]*Integration{&changed}))
	_, err := e.broker.Confirm(t.Context(), acme, "", "ops")
	require.ErrorIs(t, err, ErrNotAwaiting)
	require.ErrorContains(t, err, "configuration has changed")
	e.requireUnchanged(before)
	require.Zero(t, e.revoked(), "its token is not the other client's to send")
	for _, slot := range []tokenstore.Slot{{Integration: "Nobody", Org: "acme"}} {
		_, err := e.broker.Confirm(t.Context(), slot, "", "ops")
		require.ErrorIs(t, err, ErrUnknownIntegration)
		require.ErrorIs(t, e.broker.Reject(t.Context(), slot, "", "ops"), ErrUnknownIntegration)
	}
}
