package e2e_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

const (
	killedOrgs  = 40
	answerDelay = 20 * time.Millisecond // between a refresh token's spending and its answer: it makes a kill meet some
	savingTime  = time.Second           // between an answer and its record's being on the disk, on a busy machine
)

// TestKillLosesOnlyWhatWasNeverStored kills the process with SIGKILL while connections are used and refreshed all the time, at
// a provider that revokes a grant whose refresh token comes twice. A token whose POST was on its way cannot survive that; every
// other one must. Whether a connection was lost is read in the store, and why, in the provider's record.
func TestKillLosesOnlyWhatWasNeverStored(t *testing.T) {
	for name, c := range map[string]struct {
		redis  bool
		rounds int
	}{
		"file":  {false, 4},
		"Redis": {true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKillings(t, c.redis)
			for range c.rounds {
				k.round()
			}
			k.settle()
		})
	}
}

// killings is a site whose process is killed again and again, and what was lost by that.
type killings struct {
	*site
	orgs  []string
	lost  map[string]bool
	redis string

	mu    sync.Mutex              // guards posts
	posts map[string]*postOnRoute // by the refresh token POSTed
}

// postOnRoute is when a POST arrived at the provider and when it was answered; zero: not yet.
type postOnRoute struct{ began, answered time.Time }

func newKillings(t *testing.T, redis bool) *killings {
	k := &killings{lost: map[string]bool{}, posts: map[string]*postOnRoute{}}
	var idp *authflowtest.Provider
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { k.serve(idp, w, r) }))
	t.Cleanup(srv.Close)
	idp = authflowtest.NewProvider(authflowtest.Config{BaseURL: srv.URL, Refresh: authflowtest.OneTime, Lifetime: 2 * time.Second})
	t.Cleanup(idp.Close)
	idp.MisbehaveAlways(authflowtest.SlowAfter(answerDelay))
	k.site = newSite(t, idp)
	k.yaml += "    timeouts: {token: 2s}\n" // what bounds the wait for the outcome of a dead process's POST
	if redis {
		k.redis = storetest.StartRedis(t).URL
		k.onRedis(k.redis)
	}
	r := k.start()
	for i := range killedOrgs {
		k.orgs = append(k.orgs, fmt.Sprintf("org-%d", i))
		r.adopt(k.orgs[i])
	}
	r.kill()
	return k
}

// serve takes down when a token POST arrives and when it is answered.
func (k *killings) serve(idp *authflowtest.Provider, w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/token" {
		idp.ServeHTTP(w, r)
		return
	}
	_ = r.ParseForm() // the provider will say what is wrong with it
	post := &postOnRoute{began: time.Now()}
	k.mu.Lock()
	if token := r.PostForm.Get("refresh_token"); k.posts[token] == nil {
		k.posts[token] = post
	}
	k.mu.Unlock()
	idp.ServeHTTP(w, r)
	k.mu.Lock()
	defer k.mu.Unlock()
	post.answered = time.Now()
}

// round starts a process on what the last one left, kills it under load, and looks at what is stored.
func (k *killings) round() {
	r := k.start()
	alive := slices.DeleteFunc(slices.Clone(k.orgs), func(org string) bool { return k.lost[org] }) // the others would wait
	stop := make(chan struct{})
	var load sync.WaitGroup
	for range 16 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = r.try(r.proxied(alive[rand.IntN(len(alive))], "/graph/me")) // it is killed below it
				}
			}
		})
	}
	enough := k.idp.Count("refresh_token") + 3*killedOrgs + rand.IntN(killedOrgs)
	require.Eventually(k.t, func() bool { return k.idp.Count("refresh_token") >= enough }, patience, time.Millisecond)
	killed := time.Now()
	r.kill()
	close(stop)
	load.Wait()
	require.Eventually(k.t, k.allAnswered, patience, pollTime) // by a provider that did not notice
	k.look(killed)
}

func (k *killings) allAnswered() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, post := range k.posts {
		if post.answered.IsZero() {
			return false
		}
	}
	return true
}

// look compares each stored record with the provider's latest, and has every difference explained.
func (k *killings) look(killed time.Time) {
	k.t.Helper()
	store, done := k.open()
	defer done()
	lost := 0
	for _, org := range k.orgs {
		if k.lost[org] {
			continue
		}
		rec, err := store.Get(k.t.Context(), tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(org)})
		require.NoError(k.t, err, org)
		stored, known := k.idp.Lookup(rec.Token.Refresh)
		require.True(k.t, known, org)
		latest, _ := k.idp.Newest(stored.Grant)
		if rec.Token.Refresh == latest.Refresh {
			continue
		}
		lost++
		k.lost[org] = true
		k.explain(org, rec, stored, latest, killed)
	}
	k.t.Logf("killed: %d of %d connections had a POST on its way and are lost", lost, len(k.orgs)-len(k.lost)+lost)
}

// explain proves that a refresh token was lost in a POST that was on its way when the process died: the stored record announces
// it, it was the only POST of the stored token and the last one of its grant, the time fits, and nobody was served with what it
// brought.
func (k *killings) explain(org string, rec *tokenstore.Record, stored authflowtest.Token, latest authflowtest.Issued, killed time.Time) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	post := k.posts[rec.Token.Refresh]
	require.NotNil(k.t, post, "%s: the stored token was never POSTed, and yet there is a newer one", org)
	require.NotNil(k.t, rec.Intent, "%s: the POST was not announced", org)
	require.Equal(k.t, 1, k.idp.Refreshes()[rec.Token.Refresh], org)
	issued, _ := k.idp.Lookup(latest.Refresh)
	require.Equal(k.t, stored.Generation+1, issued.Generation, "%s: more than one generation is lost", org)
	require.True(k.t, post.began.Before(killed.Add(savingTime)) && post.answered.After(killed.Add(-savingTime)),
		"%s: POSTed from %v to %v, killed at %v", org, post.began, post.answered, killed)
	used := slices.ContainsFunc(k.idp.Sightings(), func(s authflowtest.Sighting) bool { return s.Value == latest.Access })
	require.False(k.t, used, "%s: a token was used before it was stored", org)
}

// settle restarts and waits until every connection either works or says truly that it is lost.
func (k *killings) settle() {
	r := k.start()
	defer func(began time.Time) { k.t.Log("settled after", time.Since(began)) }(time.Now())
	for _, org := range k.orgs {
		want := "200"
		if k.lost[org] {
			want = "424 needs_reconnect"
		}
		var got string
		require.Eventually(k.t, func() bool {
			got = outcome(r.try(r.proxied(org, "/graph/me")))
			return got == want
		}, patience, pollTime, "%s: %s", org, want)
	}
	require.Less(k.t, len(k.lost), len(k.orgs), "nothing is left to look at")
	for _, reuse := range k.idp.Reuses() {
		require.True(k.t, k.lost[reuse.Token.User], "the refresh token of %s was POSTed twice", reuse.Token.User)
	}
}

// open opens the store that the dead process has left.
func (k *killings) open() (tokenstore.Store, func()) {
	k.t.Helper()
	key, err := base64.StdEncoding.DecodeString(k.env["KEY"])
	require.NoError(k.t, err)
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "k1", Bytes: key})
	require.NoError(k.t, err)
	if strings.HasPrefix(k.redis, "redis://") {
		s, err := tokenstore.NewRedis(k.t.Context(), tokenstore.RedisConfig{URL: k.redis, Keys: keys})
		require.NoError(k.t, err)
		return s, func() { require.NoError(k.t, s.Close()) }
	}
	s, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: filepath.Join(k.dir, "bifrost.db"), Keys: keys})
	require.NoError(k.t, err)
	return s, func() { require.NoError(k.t, s.Close()) }
}
