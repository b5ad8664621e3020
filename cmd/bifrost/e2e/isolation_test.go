package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

const (
	isolatedOrgs  = 50
	clientsPerOrg = 50
	isolationTime = 20 * time.Second
	markerHeader  = "X-Marker"
)

// TestOrgsNeverMix has 2,500 clients of 50 orgs work at the same time for 20 seconds against a binary with the race detector,
// on tokens so short-lived that they are renewed all the time. The upstream compares whose the token is with the org and the
// marker in the path, and the client compares the answer with what it asked.
func TestOrgsNeverMix(t *testing.T) {
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime, Lifetime: 5 * time.Second})
	watch := &watcher{idp: idp, mixed: map[string]int{}}
	upstream := httptest.NewServer(watch)
	t.Cleanup(upstream.Close)
	s := newSite(t, idp)
	s.binary = built.raced
	s.replace("upstream: "+idp.BaseURL+"/api", "upstream: "+upstream.URL)
	s.yaml += "log: {requests: false}\n"
	r := s.start()
	for i := range isolatedOrgs {
		r.adopt(isolatedOrg(i))
	}
	before := idp.Count("refresh_token")

	tally := map[string]int{}
	var mu sync.Mutex // guards tally
	var clients sync.WaitGroup
	end := time.Now().Add(isolationTime)
	for i := range isolatedOrgs * clientsPerOrg {
		org := isolatedOrg(i % isolatedOrgs)
		clients.Go(func() {
			own := map[string]int{}
			for n := 0; time.Now().Before(end); n++ {
				own[ask(r, org, fmt.Sprintf("%s-%d-%d", org, i, n))]++
			}
			mu.Lock()
			defer mu.Unlock()
			for result, n := range own {
				tally[result] += n
			}
		})
	}
	clients.Wait()

	refreshes := idp.Count("refresh_token") - before
	t.Logf("%v, %d refreshes", tally, refreshes)
	require.Empty(t, watch.mixed)
	require.Empty(t, idp.Reuses())
	for result := range tally {
		// A machine too busy to serve all within the tokens' few seconds says so; nothing else may come of it.
		require.True(t, result == "200" || strings.HasPrefix(result, "503 "), result)
	}
	require.Greater(t, tally["200"], isolatedOrgs*clientsPerOrg)
	require.Greater(t, refreshes, isolatedOrgs, "the tokens were not renewed all the time")
	r.stop()
	require.NotContains(t, r.stderr.String(), "DATA RACE")
}

func isolatedOrg(i int) string { return fmt.Sprintf("org-%d", i) }

var detail = regexp.MustCompile(`"detail":"[^"]*"`)

// ask sends one request with a marker and returns what came of it.
func ask(r *replica, org, marker string) string {
	req := r.proxied(org, "/graph/"+org+"/"+marker)
	req.Header.Set(markerHeader, marker)
	ans, err := r.try(req)
	if got := outcome(ans, err); got != "200" {
		return got + " " + detail.FindString(ans.Body)
	}
	if ans.Body != marker || ans.Header.Get(markerHeader) != marker {
		return "another client's answer"
	}
	return "200"
}

// watcher is an upstream that knows of each token whose it is. It lets expired ones pass: here only the owner counts.
type watcher struct {
	idp *authflowtest.Provider

	mu    sync.Mutex     // guards mixed
	mixed map[string]int // requests that carried what was not theirs
}

func (u *watcher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	org, marker, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	token, known := u.idp.Lookup(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if !known || token.Kind != authflowtest.Access || token.User != org || r.Header.Get(markerHeader) != marker ||
		!strings.HasPrefix(marker, org+"-") {
		u.mu.Lock()
		u.mixed[fmt.Sprintf("%s got a token of %q", org, token.User)]++
		u.mu.Unlock()
	}
	w.Header().Set(markerHeader, marker)
	_, _ = w.Write([]byte(marker)) // the client may have gone
}
