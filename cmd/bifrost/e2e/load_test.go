package e2e_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// TestExpiredTokenCausesOneRefresh lets a crowd come upon an expired token of a provider that revokes a grant whose refresh
// token comes twice.
func TestExpiredTokenCausesOneRefresh(t *testing.T) {
	for name, c := range map[string]struct{ replicas, requests int }{
		"1,000 requests at one replica with a file":   {1, 1000},
		"900 requests at three replicas on one Redis": {3, 300},
	} {
		t.Run(name, func(t *testing.T) {
			idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: time.Second})
			s := newSite(t, idp)
			if c.replicas > 1 {
				s.onRedis(storetest.StartRedis(t).URL)
			}
			var replicas []*replica
			for range c.replicas {
				replicas = append(replicas, s.start())
			}
			gate := authflowtest.NewGate()
			replicas[0].consent("acme")
			idp.MisbehaveAlways(authflowtest.Behaviour{HoldBefore: gate})
			idp.SetLifetime(time.Hour)
			expired := idp.Posts()[0].Time.Add(time.Second)
			require.Eventually(t, func() bool { return time.Now().After(expired) }, patience, pollTime)

			results := crowd(replicas, c.requests, "acme")
			require.Eventually(t, func() bool {
				waiting := 0.0
				for _, r := range replicas {
					waiting += r.metric("bifrost_requests_in_flight")
				}
				return waiting == float64(c.replicas*c.requests)
			}, patience, pollTime, "not everybody waits for the refresh")
			gate.Release()

			tally := map[string]int{}
			for range c.replicas * c.requests {
				tally[<-results]++
			}
			require.Equal(t, map[string]int{"200": c.replicas * c.requests}, tally)
			require.Equal(t, 1, idp.Count("refresh_token"))
			require.Empty(t, idp.Reuses())
		})
	}
}

// crowd sends n requests at the same time to each replica and returns their outcomes as they come.
func crowd(replicas []*replica, n int, org string) <-chan string {
	results := make(chan string, n*len(replicas))
	for _, r := range replicas {
		for range n {
			req := r.proxied(org, "/graph/me")
			go func() { results <- outcome(r.try(req)) }() // ends with its answer, at the client's timeout at the latest
		}
	}
	return results
}

// outcome is a status, with the proxy's code where it is the proxy's, or the client's error.
func outcome(ans answer, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case ans.Status == http.StatusOK:
		return "200"
	}
	return fmt.Sprint(ans.Status, " ", ans.Header.Get("X-Bifrost-Error"))
}
