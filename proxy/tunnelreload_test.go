package proxy

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestAReloadClosesTheTunnelsThatItWouldNotOpen(t *testing.T) {
	other := func(c *Config) { c.Callers[0].Key = func() string { return "CANARY-another" } }
	for name, c := range map[string]struct {
		change func(*Config, *Route)
		closed bool
	}{
		"nothing of theirs is new":     {func(_ *Config, r *Route) { r.Prefix, r.MaxWebSockets = "/elsewhere", 1 }, false},
		"the caller is renamed":        {func(c *Config, _ *Route) { c.Callers[0].Name = "renamed" }, false},
		"nobody needs a key":           {func(c *Config, _ *Route) { c.Callers = nil }, false},
		"another integration":          {func(_ *Config, r *Route) { r.Integration = "Other" }, true},
		"no websocket":                 {func(_ *Config, r *Route) { r.WebSocket = false }, true},
		"no GET":                       {func(_ *Config, r *Route) { r.Methods = []string{"POST"} }, true},
		"another path":                 {func(_ *Config, r *Route) { r.Allow = []string{"GET /other"} }, true},
		"not that path":                {func(_ *Config, r *Route) { r.Deny = []string{"GET /ws"} }, true},
		"another upstream":             {retarget(func(t *Target) { t.BaseURL = "http://127.0.0.1:1" }), true},
		"another scheme":               {retarget(func(t *Target) { t.BaseURL = strings.Replace(t.BaseURL, "http:", "https:", 1) }), true},
		"another path of the upstream": {retarget(func(t *Target) { t.BaseURL += "/base" }), true},
		"another header for it":        {retarget(func(t *Target) { t.Headers = map[string]string{"X-New": "1"} }), false},
		"no upstream": {func(_ *Config, r *Route) {
			r.Target = func(tokenstore.Org) (Target, error) { return Target{}, errors.New("a value is missing") }
		}, true},
		"another org":           {func(_ *Config, r *Route) { r.OnlyOrgs = []tokenstore.Org{"globex"} }, true},
		"another key":           {func(c *Config, _ *Route) { other(c) }, true},
		"another key beside it": {func(c *Config, _ *Route) { c.Callers[0].Keys = []Key{{SHA256: digestOf("CANARY-another")}} }, false},
		"its key has ended": {func(c *Config, _ *Route) {
			c.Callers[0].Key, c.Callers[0].Keys = nil, []Key{{SHA256: digestOf(callerKey), NotAfter: time.Unix(1, 0)}}
		}, true},
		"a caller of another org": {func(c *Config, _ *Route) { c.Callers[0].Orgs = []string{"globex"} }, true},
		"a caller elsewhere":      {func(c *Config, _ *Route) { c.Callers[0].Integrations = []string{"Other"} }, true},
		"a caller's other path":   {func(c *Config, _ *Route) { c.Callers[0].Allow = []string{"GET /other"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			var route Route
			b := start(t, echoing, websockets(nil), func(_ *bench, c *Config, r *Route) { cfg, route = *c, *r })
			b.proxy.tunnels.Follow(b.proxy)
			caller := b.tunnel(t)
			cfg.Callers = []Caller{cfg.Callers[0]}
			c.change(&cfg, &route)
			cfg.Routes = []Route{route}
			next, err := New(cfg)
			require.NoError(t, err)
			next.tunnels.Follow(next)
			if !c.closed {
				caller.echoes(t)
				return
			}
			caller.ended(t)
			b.closedBecause(t, byNewRules)

			require.Equal(t, 503, b.raw(t, handshake).StatusCode, "a request that the reload overtook")
		})
	}
}

func TestATunnelWithoutACallerEndsWhereCallersAreNeeded(t *testing.T) {
	var cfg Config
	var route Route
	b := start(t, echoing, websockets(nil), func(_ *bench, c *Config, r *Route) { cfg, route = *c, *r; c.Callers = nil })
	caller := b.tunnel(t)
	cfg.Routes = []Route{route}
	next, err := New(cfg)
	require.NoError(t, err)
	next.tunnels.Follow(next)
	caller.ended(t)
}

func TestTheCapCountsTheTunnelsOfOlderProxies(t *testing.T) {
	var cfg Config
	b := start(t, echoing, websockets(func(r *Route) { r.MaxWebSockets = 1 }), func(_ *bench, c *Config, r *Route) { cfg = *c; cfg.Routes = []Route{*r} })
	old := b.tunnel(t)
	next, err := New(cfg)
	require.NoError(t, err)
	front := httptest.NewServer(next)
	t.Cleanup(front.Close)
	b.front = front
	require.Equal(t, 503, b.raw(t, handshake).StatusCode)
	old.echoes(t)
}

// retarget changes where a route leads.
func retarget(change func(*Target)) func(*Config, *Route) {
	return func(_ *Config, r *Route) {
		now := r.Target
		r.Target = func(org tokenstore.Org) (Target, error) {
			t, err := now(org)
			change(&t)
			return t, err
		}
	}
}
