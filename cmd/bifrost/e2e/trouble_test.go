package e2e_test

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const (
	troubledOrgs = 60
	troubledLife = 8 * time.Second                // of their tokens
	troubledHard = troubledLife - troubledLife/10 // they are used up to here
	backWithin   = 15 * time.Second               // of the provider's return, or of the end of its Retry-After
)

// TestProviderInTrouble has the token endpoint of one integration fail, each time in another way, while the tokens of all its
// connections run out: they are used to their end, then requests are told when to come again, the endpoint is left in peace,
// and all of it passes with the trouble. Another integration never notices.
func TestProviderInTrouble(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trouble  authflowtest.Behaviour
		mandated time.Duration // the provider's Retry-After
		outcomes []string      // once the tokens have run out
	}{
		"it answers 503":               {authflowtest.Status(http.StatusServiceUnavailable, ""), 0, []string{"503 idp_unavailable"}},
		"it answers 429 and says when": {authflowtest.Status(http.StatusTooManyRequests, "10"), 10 * time.Second, []string{"503 idp_unavailable"}},
		"it never answers":             {authflowtest.Behaviour{HoldBefore: authflowtest.NewGate()}, 0, []string{"503 idp_unavailable", "503 refresh_pending"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTroubled(t)
			posts, began := p.idp.Count(""), time.Now()
			p.idp.MisbehaveAlways(c.trouble)

			served := p.call(t, time.Until(began.Add(troubledHard-time.Second)))
			require.Equal(t, []string{"200"}, slices.Collect(maps.Keys(served.outcomes(time.Time{}))), "while their tokens last")
			p.call(t, time.Until(began.Add(troubledLife))) // somewhere in here they run out
			refused := p.call(t, 2*time.Second)
			for outcome := range refused.outcomes(time.Time{}) {
				require.Contains(t, c.outcomes, outcome)
			}
			for _, org := range p.orgs[:3] {
				ans := p.replica.call(org, "/graph/me")
				checkRetryAfter(t, ans)
				require.NotEqual(t, "needs_reconnect", p.status(org))
			}
			tried := p.idp.Count("") - posts
			t.Logf("%d POSTs in %v of trouble with %d connections; before: %v; then: %v; %v goroutines", tried,
				time.Since(began).Round(time.Second), troubledOrgs, served, refused, p.metric("go_goroutines"))
			require.LessOrEqual(t, tried, troubledPosts)

			p.idp.Behave()
			p.idp.Close() // whoever is held is let go
			p.idp.SetLifetime(time.Hour)
			over := time.Now()
			if end := began.Add(c.mandated); end.After(over) {
				over = end
			}
			for _, org := range p.orgs {
				require.Eventually(t, func() bool { return p.replica.call(org, "/graph/me").Status == http.StatusOK },
					time.Until(over.Add(backWithin+patience)), pollTime, org)
			}
			t.Logf("every connection served %v after the trouble was over", time.Since(over).Round(10*time.Millisecond))
			require.LessOrEqual(t, time.Since(over), backWithin+2*time.Second)
			for _, org := range p.orgs {
				require.Equal(t, "active", p.status(org), org)
			}
		})
	}
}

// troubledPosts is what a token endpoint is asked before it is known to fail: five times in a row, sixteen at a time, by a
// class that asks again at once where there is no answer, and by those in between.
const troubledPosts = 5 + 3*16

// troubled is a replica with connections at a provider that will fail, and one at a provider that will not.
type troubled struct {
	*replica
	idp, other *authflowtest.Provider
	orgs       []string
}

func newTroubled(t *testing.T) *troubled {
	p := &troubled{orgs: orgsNamed("org", troubledOrgs)}
	p.idp = newProvider(t, authflowtest.Config{Lifetime: troubledLife})
	p.other = newProvider(t, authflowtest.Config{Lifetime: time.Hour})
	s := newSite(t, p.idp)
	s.replace("refresh_tokens: one_time", "refresh_tokens: reusable\n    timeouts: {token: 2s}")
	s.yaml += strings.NewReplacer("IDP", p.other.BaseURL).Replace(`
  other:
    route: /other
    upstream: IDP/api
    client_id: client-1
    client_secret: {env: SECRET}
    authorization_url: IDP/authorize
    token_url: IDP/token
`)
	p.replica = s.start()
	p.adoptAt("other", p.other, "acme")
	for _, org := range p.orgs {
		p.adopt(org)
	}
	return p
}

// call sends requests of all connections for d and wants those of the other integration to succeed.
func (p *troubled) call(t *testing.T, d time.Duration) *samples {
	t.Helper()
	at, beside := &samples{}, &samples{}
	steadily(d, 8*time.Millisecond, func(i int) {
		at.send(p.replica, p.proxied(p.orgs[i%len(p.orgs)], "/graph/me"))
		if i%10 == 0 {
			beside.send(p.replica, p.proxied("acme", "/other/me"))
		}
	})
	beside.flying.Wait()
	require.Equal(t, []string{"200"}, slices.Collect(maps.Keys(beside.outcomes(time.Time{}))), "the other integration")
	return at
}

// TestExpiredClientSecret has the provider refuse our client for fifty connections whose tokens run out: one POST finds out,
// no connection changes state, and the first request after a reload with the right secret succeeds.
func TestExpiredClientSecret(t *testing.T) {
	t.Parallel()
	const life = 3 * time.Second
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: life})
	s := newSite(t, idp)
	secret := filepath.Join(s.dir, "client-secret")
	require.NoError(t, os.WriteFile(secret, []byte(idp.ClientSecret()), 0o600))
	s.replace("client_secret: {env: SECRET}", "client_secret: {file: "+secret+"}")
	r := s.start()
	orgs := orgsNamed("org", 50)
	for _, org := range orgs {
		r.adopt(org)
	}
	idp.SetClientSecret("CANARY-new-client-secret")
	posts, expired := idp.Count(""), time.Now().Add(life)
	load := &samples{}
	steadily(time.Until(expired.Add(3*time.Second)), 5*time.Millisecond, func(i int) {
		load.send(r, r.proxied(orgs[i%len(orgs)], "/graph/me"))
	})
	require.Equal(t, []string{"503 idp_rejected_client"}, slices.Collect(maps.Keys(load.outcomes(expired))))
	require.LessOrEqual(t, idp.Count("")-posts, 2, "POSTs within a minute")
	for _, org := range orgs {
		checkRetryAfter(t, r.call(org, "/graph/me"))
		require.Equal(t, "active", r.status(org), org)
	}
	t.Logf("requests: %v; %d POSTs", load, idp.Count("")-posts)

	idp.SetLifetime(time.Hour)
	require.NoError(t, os.WriteFile(secret, []byte(idp.ClientSecret()), 0o600))
	reloads := r.metric("bifrost_config_last_reload_success_timestamp_seconds")
	require.NoError(t, r.cmd.Process.Signal(syscall.SIGHUP))
	require.Eventually(t, func() bool { return r.metric("bifrost_config_last_reload_success_timestamp_seconds") > reloads }, patience, pollTime)
	for _, org := range orgs {
		require.Equal(t, "200", outcome(r.try(r.proxied(org, "/graph/me"))), org)
	}
	require.Empty(t, idp.Reuses())
}
