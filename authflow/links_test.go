package authflow

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func (e *consentEnv) makeLink(slot tokenstore.Slot, life time.Duration) Link {
	e.t.Helper()
	link, err := e.broker.ConnectLink(e.t.Context(), slot, "ops", life)
	require.NoError(e.t, err)
	return link
}

func (e *consentEnv) openLinks() []OpenLink {
	e.t.Helper()
	open, err := e.broker.ConnectLinks(e.t.Context(), acme)
	require.NoError(e.t, err)
	return open
}

func TestOpenLinksAreListedUntilTheyAreSpentOrExpire(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	require.Empty(t, e.openLinks())
	first, second := e.makeLink(acme, 0), e.makeLink(acme, time.Hour)
	e.makeLink(tokenstore.Slot{Integration: "Graph", Org: "globex"}, 0)
	e.makeLink(acme, time.Nanosecond)
	button, err := e.broker.ConnectHere(t.Context(), acme, "ops")
	require.NoError(t, err)

	open := e.openLinks()
	require.Equal(t, []string{first.ID, second.ID}, idsOf(open), "of this connection, in order, without a button's")
	require.Equal(t, "ops", open[0].MadeBy)
	require.WithinDuration(t, time.Now(), open[0].MadeAt, time.Minute)
	require.WithinDuration(t, second.ExpiresAt, open[1].ExpiresAt, time.Second)
	require.NotContains(t, first.URL, first.ID, "the public id opens nothing")
	require.Equal(t, http.StatusForbidden, e.newBrowser().get(e.public+"/oauth/connect/Graph?ticket="+first.ID).status)
	con, err := e.broker.Connection(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, 2, con.OpenLinks)

	b := e.newBrowser()
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(first.URL)).status)
	require.Equal(t, []string{second.ID}, idsOf(e.openLinks()), "a successful connect spends its link and no other")
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(button.URL)).status)
	require.Equal(t, http.StatusForbidden, b.get(button.URL).status)
	require.NoError(t, e.broker.Disconnect(t.Context(), acme, "ops"))
	require.Equal(t, []string{second.ID}, idsOf(e.openLinks()), "a disconnect revokes nothing")
}

func TestARevokedLinkConnectsNobody(t *testing.T) {
	one := func(e *consentEnv, link Link) {
		require.NoError(e.t, e.broker.RevokeLink(e.t.Context(), acme, link.ID))
		require.ErrorIs(e.t, e.broker.RevokeLink(e.t.Context(), acme, link.ID), ErrNoLink, "once")
	}
	all := func(e *consentEnv, _ Link) {
		revoked, err := e.broker.RevokeLinks(e.t.Context(), acme)
		require.NoError(e.t, err)
		require.Equal(e.t, 2, revoked)
	}
	lost := func(e *consentEnv, _ Link) { // the list has lost the link in a failover
		require.NoError(e.t, shelve(e.t.Context(), e.store, linkListID(acme), linkList{}, listLife))
		_, err := e.broker.RevokeLinks(e.t.Context(), acme)
		require.NoError(e.t, err)
	}
	for name, revoke := range map[string]func(*consentEnv, Link){"by its id": one, "with all others": all, "that the list has lost": lost} {
		t.Run(name, func(t *testing.T) {
			e := newConsentEnv(t, consentSetup{})
			b, link, other := e.newBrowser(), e.makeLink(acme, 0), e.makeLink(acme, 0)
			elsewhere := e.makeLink(tokenstore.Slot{Integration: "Graph", Org: "globex"}, 0)
			callback := b.consent(link.URL)
			revoke(e, link)

			require.NotContains(t, idsOf(e.openLinks()), link.ID)
			require.Equal(t, http.StatusForbidden, b.get(link.URL).status)
			require.Equal(t, http.StatusForbidden, b.do(http.MethodPost, link.URL, nil).status)
			page := b.get(callback)
			require.Equal(t, http.StatusForbidden, page.status, "a consent that was under way")
			require.Contains(t, page.body, "This connect link was revoked")
			require.Zero(t, e.exchanges())
			require.Nil(t, e.stored(acme))
			require.Equal(t, 1, e.count(resultTicketSpent))
			require.Equal(t, http.StatusOK, b.get(elsewhere.URL).status, "of another connection")
			want := http.StatusForbidden
			if name == "by its id" {
				want = http.StatusOK
			}
			require.Equal(t, want, b.get(other.URL).status)
			require.Equal(t, http.StatusOK, b.get(e.makeLink(acme, 0).URL).status, "one made afterwards")
		})
	}
}

// The provider has given a token already when the link is revoked: it is given back.
func TestALinkRevokedDuringTheExchange(t *testing.T) {
	e := newConsentEnv(t, consentSetup{revokes: true})
	b, link := e.newBrowser(), e.makeLink(acme, 0)
	callback := b.consent(link.URL)
	gate := authflowtest.NewGate()
	e.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
	got := make(chan seen, 1)
	go func() { got <- b.get(callback) }() // ends with the gate
	<-gate.Arrived()
	require.NoError(t, e.broker.RevokeLink(t.Context(), acme, link.ID))
	gate.Release()
	require.Equal(t, http.StatusForbidden, (<-got).status)
	require.Nil(t, e.stored(acme))
	require.NoError(t, e.broker.Wait(t.Context()))
	require.Len(t, e.provider.Revocations(), 1)
}

// The link was looked at before the first attempt to store the grant and not before the later ones: one that was revoked while the
// store took no writes connected all the same.
func TestALinkRevokedWhileTheGrantCannotBeStored(t *testing.T) {
	e := newConsentEnv(t, consentSetup{revokes: true})
	b, link := e.newBrowser(), e.makeLink(acme, 0)
	callback := b.consent(link.URL)
	tried := make(chan struct{}, 100)
	e.store.failing(func(op, _ string) error {
		if op != "save" {
			return nil
		}
		tried <- struct{}{}
		return tokenstore.ErrUnavailable
	})
	got := make(chan seen, 1)
	go func() { got <- b.get(callback) }() // ends soon after the store is back
	<-tried
	require.NoError(t, e.broker.RevokeLink(t.Context(), acme, link.ID))
	e.store.failing(nil)
	require.Equal(t, http.StatusForbidden, (<-got).status)
	require.Nil(t, e.stored(acme))
	require.Equal(t, 1, e.revoked())
}

// Some providers revoke everything that an account has given us with any one of its tokens: the link of a reconnect that was revoked
// meanwhile took the connection with it.
func TestALinkRevokedDuringAReconnectLeavesTheConnectionAlone(t *testing.T) {
	for user, revoked := range map[string]int{"alice": 0, "mallory": 1} {
		t.Run(user, func(t *testing.T) {
			who := "alice"
			e := accounts(t, &who, consentSetup{})
			e.consents()
			before := e.stored(acme)
			who = user
			b, link := e.newBrowser(), e.makeLink(acme, 0)
			callback := b.consent(link.URL)
			gate := authflowtest.NewGate()
			e.provider.Misbehave(authflowtest.Behaviour{HoldAfter: gate})
			got := make(chan seen, 1)
			go func() { got <- b.get(callback) }() // ends with the gate
			<-gate.Arrived()
			require.NoError(t, e.broker.RevokeLink(t.Context(), acme, link.ID))
			gate.Release()
			require.Equal(t, http.StatusForbidden, (<-got).status)
			e.requireUnchanged(before)
			require.Equal(t, revoked, e.revoked())
		})
	}
}

func TestRevokingReachesNoOtherConnectionsLinks(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.makeLink(acme, 0)
	for _, slot := range []tokenstore.Slot{{Integration: "Graph", Org: "globex"}, {Integration: "Other", Org: "acme"}} {
		require.ErrorIs(t, e.broker.RevokeLink(t.Context(), slot, link.ID), ErrNoLink)
		_, err := e.broker.RevokeLinks(t.Context(), slot)
		require.NoError(t, err)
	}
	require.Equal(t, http.StatusOK, e.newBrowser().get(link.URL).status)
	nobody := tokenstore.Slot{Integration: "Nobody", Org: "acme"}
	_, err := e.broker.RevokeLinks(t.Context(), nobody)
	require.ErrorIs(t, err, ErrUnknownIntegration)
	require.ErrorIs(t, e.broker.RevokeLink(t.Context(), nobody, "x"), ErrUnknownIntegration)
	_, err = e.broker.ConnectLinks(t.Context(), nobody)
	require.ErrorIs(t, err, ErrUnknownIntegration)
}

func TestOpenLinksAreBounded(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	var last Link
	for range MaxLinks {
		last = e.makeLink(acme, 0)
	}
	_, err := e.broker.ConnectLink(t.Context(), acme, "ops", 0)
	require.ErrorIs(t, err, ErrBadLink)
	require.ErrorContains(t, err, "50 connect links of this connection are open")
	_, err = e.broker.ConnectHere(t.Context(), acme, "ops")
	require.NoError(t, err, "a Connect button works on")
	e.makeLink(tokenstore.Slot{Integration: "Graph", Org: "globex"}, 0)
	require.NoError(t, e.broker.RevokeLink(t.Context(), acme, last.ID))
	e.makeLink(acme, 0)
}

// Two replicas make links at once: each must be in the list, which the Shelf alone does not see to.
func TestLinksMadeOnTwoReplicasAtOnceAreAllListed(t *testing.T) {
	for name, stores := range map[string]func(*testing.T) [2]tokenstore.Backend{"Redis": twoRedis, "file": oneFile} {
		t.Run(name, func(t *testing.T) {
			both := stores(t)
			e := newConsentEnv(t, consentSetup{store: &faultyStore{Backend: both[0]}})
			replicas := []*Broker{e.broker, e.newBroker(both[1])}
			var all sync.WaitGroup
			for i := range 24 {
				all.Go(func() {
					if _, err := replicas[i%2].ConnectLink(t.Context(), acme, "ops", 0); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			require.Len(t, e.openLinks(), 24)
		})
	}
}

// twoRedis are two replicas' views of one Redis.
func twoRedis(t *testing.T) [2]tokenstore.Backend {
	redis := storetest.StartRedis(t)
	return [2]tokenstore.Backend{storetest.OpenRedis(t, redis.URL), storetest.OpenRedis(t, redis.URL)}
}

// oneFile is one file, which two Brokers of a process share.
func oneFile(t *testing.T) [2]tokenstore.Backend {
	file := storetest.OpenFile(t)
	return [2]tokenstore.Backend{file, file}
}

func TestALinkThatCannotBeListedIsNotGivenOut(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	for _, failing := range []string{"peek links:", "put links:", "put link:", "put ticket:"} {
		e.store.failing(unavailable(failing))
		link, err := e.broker.ConnectLink(t.Context(), acme, "ops", 0)
		e.store.failing(nil)
		require.ErrorIs(t, err, ErrStore, failing)
		require.Zero(t, link)
		require.Empty(t, e.openLinks(), failing)
	}
	link := e.makeLink(acme, 0)
	e.store.failing(unavailable("peek links:"))
	require.Equal(t, http.StatusServiceUnavailable, e.newBrowser().get(link.URL).status, "revoked or not: nobody knows")
}

// A link of the release before has no entry: it goes on, and revoking all ends it.
func TestALinkOfAnEarlierRelease(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	old := func() string {
		secret := newSecret()
		require.NoError(t, e.broker.shelveTicket(t.Context(), secret, ticket{Slot: acme, By: "ops", Expires: time.Now().Add(time.Hour)}))
		return e.public + "/oauth/connect/Graph?ticket=" + secret
	}
	b, link := e.newBrowser(), old()
	require.Equal(t, http.StatusSeeOther, b.get(b.consent(link)).status)
	require.Equal(t, http.StatusForbidden, b.get(link).status)
	link = old()
	_, err := e.broker.RevokeLinks(t.Context(), acme)
	require.NoError(t, err)
	require.Equal(t, http.StatusForbidden, b.get(link).status)
}

// Whoever holds a link must not fill the store with consents that never come back, however many he begins at once.
func TestConsentsUnderWayAreBoundedPerLink(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.link()
	var begun, refused atomic.Int64
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			resp, err := (&http.Transport{}).RoundTrip(newPost(link))
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusSeeOther:
				begun.Add(1)
			case http.StatusTooManyRequests:
				refused.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, maxPerLink, begun.Load())
	require.EqualValues(t, 20, refused.Load())
	page := e.newBrowser().do(http.MethodPost, link, nil)
	require.Equal(t, http.StatusTooManyRequests, page.status)
	require.NotEmpty(t, page.header.Get("Retry-After"))
	require.Empty(t, page.header.Get("Set-Cookie"))
	require.Equal(t, http.StatusSeeOther, e.newBrowser().do(http.MethodPost, e.link(), nil).status, "another link is free")
}

func newPost(link string) *http.Request {
	req, _ := http.NewRequest(http.MethodPost, link, nil) // link is a URL
	return req
}

func TestAConsentThatHasEndedMakesRoom(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	link := e.link()
	b := e.newBrowser()
	denied := with(t, b.consent(link), "code", "", "error", "access_denied")
	for range maxPerLink - 1 {
		e.newBrowser().click(link)
	}
	require.Equal(t, http.StatusTooManyRequests, b.do(http.MethodPost, link, nil).status)
	require.Equal(t, http.StatusForbidden, b.get(denied).status)
	require.Equal(t, http.StatusSeeOther, b.do(http.MethodPost, link, nil).status)
}

func TestPagesLeadOperatorsAloneToTheScreen(t *testing.T) {
	e := newConsentEnv(t, consentSetup{})
	b := e.newBrowser()
	link := e.link()
	landing := b.get(link).body
	require.Contains(t, landing, "<dt>Link made by</dt><dd>ops</dd>")
	require.Contains(t, landing, "<dt>Good until</dt><dd>"+atMinute(e.openLinks()[0].ExpiresAt))
	done := b.get(b.get(b.consent(link)).location).body
	require.Contains(t, done, "You can close this page.")
	for _, page := range []string{landing, done, b.get(link).body} {
		require.NotContains(t, page, "/integrations")
	}

	button, err := e.broker.ConnectHere(t.Context(), acme, "ops")
	require.NoError(t, err)
	landing = b.get(button.URL).body
	require.NotContains(t, landing, "Link made by", "he has pressed it himself")
	done = b.get(b.get(b.consent(button.URL)).location).body
	require.Contains(t, done, `<a class="button" href="`+e.public+`/integrations">Open Integrations</a>`)
}
