package authflow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// Who can write to the store, but has no key, can neither alter a consent or a ticket nor put one in another's place.
func TestC18WhatIsSealedCannotBeForged(t *testing.T) {
	g := newGround(t, consentSetup{})
	set := func(key, value string) {
		require.NoError(t, g.redis.Set(t.Context(), key, value, 10*time.Minute).Err())
	}
	attacker, victim := g.newBrowser(), g.newBrowser()
	ownLink, link := g.linkFor(mallory), g.linkFor(acme)
	own, callback := g.consent(attacker, ownLink), g.consent(victim, link)
	ownTicket, ticketKey := g.shelfKey(ticketID(parameter(t, ownLink, "ticket"))), g.shelfKey(ticketID(parameter(t, link, "ticket")))
	ownConsent, consentKey := g.shelfKey(consentID(parameter(t, own, "state"))), g.shelfKey(consentID(parameter(t, callback, "state")))
	before := g.state()

	sealed := before.shelf[consentKey]
	for i := 0; i < len(sealed); i += 1 + len(sealed)/150 { // of every part; tokenstore flips every bit
		flipped := []byte(sealed)
		flipped[i] ^= 1 << (i % 8)
		set(consentKey, string(flipped))
		g.refused(victim, callback, http.StatusBadRequest, isOver)
	}
	set(consentKey, before.shelf[ownConsent]) // his consent under the victim's state, and the other way round
	set(ownConsent, sealed)
	g.refused(victim, callback, http.StatusBadRequest, isOver)
	g.refused(attacker, own, http.StatusBadRequest, isOver)
	set(ownTicket, before.shelf[ticketKey]) // acme's ticket under the id of his own, and a consent for a ticket
	g.refused(attacker, ownLink, http.StatusForbidden, noLink)
	set(ownTicket, sealed)
	g.refused(attacker, ownLink, http.StatusForbidden, noLink)
	require.Equal(t, before.posts, g.posts())
	require.Equal(t, before.rows, g.dump("r"))

	g.connect(attacker, mallory) // and a connection of his in the place of acme's
	hacked := map[string]string{}
	for _, org := range []tokenstore.Org{acme.Org, mallory.Org} {
		suffix := "." + base64.RawURLEncoding.EncodeToString([]byte(org))
		for key := range g.dump("r") {
			if strings.HasSuffix(key, suffix) {
				hacked[string(org)] = key
			}
		}
	}
	for name, value := range g.redis.HGetAll(t.Context(), hacked["mallory"]).Val() {
		require.NoError(t, g.redis.HSet(t.Context(), hacked["acme"], name, value).Err())
	}
	_, err := g.replica(g.stores[0]).Token(t.Context(), acme)
	require.ErrorIs(t, err, ErrUnreadable)

	set(consentKey, sealed)
	require.Equal(t, http.StatusSeeOther, victim.get(callback).status, "the original is as good as ever")
}

// shelfKey returns the key in Redis of what the shelf keeps under id.
func (g *ground) shelfKey(id string) string {
	g.t.Helper()
	sum := sha256.Sum256([]byte(id))
	for key := range g.dump("s") {
		if strings.HasSuffix(key, base64.RawURLEncoding.EncodeToString(sum[:])) {
			return key
		}
	}
	g.t.Fatal("it is not on the shelf")
	return ""
}

func parameter(t *testing.T, raw, name string) string {
	t.Helper()
	return mustParse(t, raw).Query().Get(name)
}

// Each step at another replica, with a key rotation rolling through them meanwhile: contract 3.6 keeps consents on the Shelf, where
// faults.md thinks of sealed cookies, so that what has to be shared is the store and the keys.
func TestC19AnyReplicaServesAnyStepWhileKeysRotate(t *testing.T) {
	g := newGround(t, consentSetup{})
	ring := func(keys ...tokenstore.Key) *Broker {
		made, err := tokenstore.NewKeyring(keys...)
		require.NoError(t, err)
		return g.replica(storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: g.server.URL, Keys: made}))
	}
	next := tokenstore.Key{ID: "next", Bytes: bytes.Repeat([]byte{9}, 32)}
	old, knows, rotated := g.replicas[0], ring(storetest.Key(), next), ring(next, storetest.Key())

	for _, order := range [][]*Broker{
		{old, old, knows, knows}, {old, knows, rotated, knows}, {knows, rotated, knows, rotated}, {rotated, rotated, rotated, knows}, {old, rotated, rotated, rotated},
	} {
		b := g.newBrowser()
		g.serve(order[0])
		g.broker = order[0]
		link := g.linkFor(acme)
		step := func(n int) { g.serve(order[n]) }
		require.Equal(t, http.StatusOK, b.get(link).status)
		step(1)
		callback := g.consent(b, link)
		step(2)
		sent := b.get(callback)
		require.Equal(t, http.StatusSeeOther, sent.status, sent.body)
		step(3)
		require.Equal(t, http.StatusOK, b.get(sent.location).status)
	}

	// A replica that has not heard of the new key refuses, without harm: the consent goes on at one that has.
	g.serve(rotated)
	g.broker = rotated
	b := g.newBrowser()
	callback := g.consent(b, g.linkFor(acme))
	before := g.state()
	g.serve(old)
	g.refused(b, callback, http.StatusBadRequest, isOver)
	g.requireUntouched(before)
	g.serve(rotated)
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
}

// A consent that brings no refresh token, as Google's second one: stored and said to be `expiring` (contract 4), where faults.md
// asks for a switch. The refresh token of the grant before is not made part of the new one.
func TestC23AGrantWithoutRefreshTokenSaysSo(t *testing.T) {
	g := newGround(t, consentSetup{})
	old := g.stored(acme)
	require.NotEmpty(t, old.Token.Refresh)
	b := g.newBrowser()
	callback := g.consent(b, g.linkFor(acme))
	g.provider.Misbehave(authflowtest.Without("refresh_token"))
	page := b.get(b.get(callback).location)
	require.Contains(t, page.body, "The provider gave no refresh token.")
	require.Contains(t, page.body, "has to be made again then")

	rec := g.stored(acme)
	require.NotEqual(t, old.Grant, rec.Grant)
	require.Empty(t, rec.Token.Refresh)
	for _, b := range g.replicas {
		connection, err := b.Connection(t.Context(), acme)
		require.NoError(t, err)
		require.Equal(t, Expiring, connection.Status)
		require.False(t, connection.HasRefresh)
	}
	g.requireCounted(resultNoRefresh, 1)
}

// requireCounted asserts how many callbacks of Graph all replicas have counted with this result.
func (g *ground) requireCounted(result string, want int) {
	g.t.Helper()
	n := 0
	for _, b := range g.replicas {
		g.broker = b
		n += g.count(result)
	}
	require.Equal(g.t, want, n)
}

// A refresh of the old grant is on its way at one replica when the callback arrives at another: whatever the provider answers to
// it, the new grant stands (I4, I5).
func TestC24ARefreshOfTheOldGrantCannotUndoTheNewOne(t *testing.T) {
	for name, answer := range map[string]authflowtest.Behaviour{
		"a new token":        {},
		"invalid_grant":      authflowtest.OAuthError(http.StatusBadRequest, "invalid_grant"),
		"a fault":            authflowtest.Status(http.StatusBadGateway, ""),
		"no answer":          authflowtest.DropAfter(),
		"our client refused": authflowtest.OAuthError(http.StatusUnauthorized, "invalid_client"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for a look at the store
			g := newGround(t, consentSetup{})
			b := g.newBrowser()
			callback := g.consent(b, g.linkFor(acme))
			gate := authflowtest.NewGate()
			answer.When = func(post authflowtest.Post) bool { return post.GrantType == "refresh_token" }
			answer.HoldAfter = gate
			g.provider.Misbehave(answer)
			ended := make(chan error, 1)
			go func() { // ends with the answer
				_, err := g.replicas[1].Refresh(context.WithoutCancel(t.Context()), acme)
				ended <- err
			}()
			<-gate.Arrived()
			g.serve(g.replicas[2])
			require.Equal(t, http.StatusSeeOther, b.get(callback).status)
			after := g.dump("r")
			granted := g.stored(acme)
			gate.Release()
			<-ended // with an error or not: it was of the old grant
			for _, replica := range g.replicas {
				require.NoError(t, replica.Wait(t.Context()))
			}
			require.Equal(t, after, g.dump("r"))
			for _, replica := range g.replicas {
				require.Eventually(t, func() bool { // a look at the store behind the request
					cred, err := replica.Token(t.Context(), acme)
					return err == nil && cred.Header() == "Bearer "+granted.Token.Access
				}, waitLong, waitStep)
				connection, err := replica.Connection(t.Context(), acme)
				require.NoError(t, err)
				require.Equal(t, Active, connection.Status)
			}
		})
	}
}

// The code is exchanged and the grant cannot be stored: the page says so, the old grant goes on, and the new one, which nobody will
// use, is revoked where it certainly was not stored. attack_time_test.go has the store that is away for all of the 10 s.
func TestC25AGrantThatCannotBeStoredIsNoSuccess(t *testing.T) {
	g := newGround(t, consentSetup{change: func(in *Integration) {
		resolve := in.Resolve
		in.Resolve = func(org tokenstore.Org) (Endpoints, error) {
			ep, err := resolve(org)
			ep.RevocationURL = strings.TrimSuffix(ep.TokenURL, "token") + "revoke"
			return ep, err
		}
	}})
	link := g.linkFor(acme)
	b := g.newBrowser()
	callback := g.consent(b, link)
	before := g.state()
	g.failing(func(op, _ string) error {
		if op == "save" {
			return tokenstore.ErrUnreadable
		}
		return nil
	})
	page := g.refused(b, callback, http.StatusServiceUnavailable, "The connection could not be stored")
	g.failing(nil)
	require.NotEmpty(t, page.header.Get("Retry-After"))
	require.Equal(t, before.rows, g.dump("r"))
	require.Equal(t, before.posts+1, g.posts())
	g.requireCounted(resultNotSaved, 1)
	require.Len(t, g.provider.Revocations(), 1)
	revoked, known := g.provider.Lookup(g.provider.Revocations()[0].Form.Get("token"))
	require.True(t, known)
	current, known := g.provider.Lookup(g.stored(acme).Token.Refresh)
	require.True(t, known)
	require.NotEqual(t, current.Grant, revoked.Grant)
	require.True(t, current.Alive, "the old one goes on")
	g.refused(b, callback, http.StatusBadRequest, notHere)
	require.Equal(t, before.posts+1, g.posts(), "a reload exchanges nothing again")

	// A store that is back in time costs nothing: the link, which was not spent, connects through two failed writes.
	failures := 2
	callback = g.consent(b, link)
	g.failing(func(op, _ string) error {
		if op == "save" && failures > 0 {
			failures--
			return tokenstore.ErrUnavailable
		}
		return nil
	})
	require.Equal(t, http.StatusSeeOther, b.get(callback).status)
	require.Equal(t, slices.Sorted(maps.Keys(before.rows)), slices.Sorted(maps.Keys(g.dump("r"))))
	require.NotEqual(t, before.rows, g.dump("r"))
	require.Len(t, g.provider.Revocations(), 1)
}
