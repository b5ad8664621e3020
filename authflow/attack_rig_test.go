package authflow

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// publicHost is where browsers reach the replicas, by https: a name, so that it can have siblings.
const publicHost = "bifrost.example.com"

// ground is where the attacks on connecting take place: three replicas that share a real Redis take turns behind one https
// name, an honest provider and a hostile one have an integration each, and acme has a connection that is to stay as it is.
// Whatever happens, no log of a replica may hold a secret or what somebody else wrote.
type ground struct {
	*consentEnv
	hostile  *authflowtest.Provider // of the integration Evil
	evil     *Integration
	server   *storetest.RedisServer
	redis    *redis.Client
	stores   []*faultyStore
	replicas []*Broker
	turn     atomic.Int64 // of the replica that answers next
	listener string       // host:port behind publicHost
}

func newGround(t *testing.T, setup consentSetup) *ground {
	t.Helper()
	g := &ground{server: storetest.StartRedis(t)}
	g.redis = redis.NewClient(&redis.Options{Addr: g.server.Addr})
	t.Cleanup(func() { require.NoError(t, g.redis.Close()) })
	for range 3 {
		g.stores = append(g.stores, &faultyStore{Backend: storetest.OpenRedis(t, g.server.URL)})
	}
	setup.tls, setup.store = true, g.stores[0]
	g.consentEnv = newConsentEnv(t, setup)
	g.listener = mustParse(t, g.public).Host
	g.public = "https://" + publicHost
	g.hostile = authflowtest.New(t, authflowtest.Config{ClientID: "client-of-evil", ClientSecret: "CANARY-secret-of-evil", Issuer: "https://evil.example"})
	g.evil = &Integration{
		Name: "Evil", ClientID: "client-of-evil", ClientSecret: func() string { return "CANARY-secret-of-evil" }, Issuer: "https://evil.example",
		Resolve: func(tokenstore.Org) (Endpoints, error) {
			return Endpoints{AuthorizationURL: g.hostile.AuthorizationURL, TokenURL: g.hostile.TokenURL}, nil
		},
	}
	for _, store := range g.stores {
		g.replicas = append(g.replicas, g.replica(store))
	}
	g.broker = g.replicas[0]
	g.serve(g.replicas...)
	g.connect(g.newBrowser(), acme)
	t.Cleanup(func() {
		require.NotContains(t, g.logs.String(), "CANARY", "in a log")
		for line := range strings.Lines(g.logs.String()) {
			require.True(t, json.Valid([]byte(line)), "a line of the log was forged: %s", line)
		}
	})
	return g
}

// replica starts another Broker of the same configuration.
func (g *ground) replica(store tokenstore.Backend) *Broker {
	g.t.Helper()
	b, err := New(Config{
		Store: store, PublicURL: g.public, Metrics: prometheus.NewRegistry(), Integrations: []*Integration{g.graph, g.evil},
		Log: slog.New(slog.NewJSONHandler(g.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	require.NoError(g.t, err)
	return b
}

// serve has the replicas take turns.
func (g *ground) serve(replicas ...*Broker) {
	var handlers []http.Handler
	for _, b := range replicas {
		handlers = append(handlers, b.Handler())
	}
	g.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[int(g.turn.Add(1))%len(handlers)].ServeHTTP(w, r)
	})
}

// failing makes what match returns fail at every replica.
func (g *ground) failing(match func(op, id string) error) {
	for _, store := range g.stores {
		store.failing(match)
	}
}

// newBrowser returns a browser that finds us, and whoever claims to be our sibling, at the listener.
func (g *ground) newBrowser() *browser {
	b := g.consentEnv.newBrowser()
	b.client.Jar = &prefixJar{CookieJar: b.client.Jar}
	b.client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host, _, _ := net.SplitHostPort(addr); strings.HasSuffix(host, ".example.com") {
			addr = g.listener
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return b
}

// prefixJar takes cookies as browsers do (RFC 6265bis section 4.1.3): one whose name begins with __Host- is ignored unless it
// is secure, for every path, and for the host alone that sets it. That goes for the removal of a cookie too.
type prefixJar struct{ http.CookieJar }

func (j *prefixJar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.CookieJar.SetCookies(u, slices.DeleteFunc(slices.Clone(cookies), func(c *http.Cookie) bool {
		return strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Path != "/" || c.Domain != "" || u.Scheme != "https")
	}))
}

// cookies returns the names of what the browser would send us.
func (b *browser) cookies() (names []string) {
	for _, c := range b.client.Jar.Cookies(mustParse(b.t, b.e.public)) {
		names = append(names, c.Name)
	}
	return names
}

func (g *ground) linkFor(slot tokenstore.Slot) string {
	g.t.Helper()
	link, err := g.broker.ConnectLink(g.t.Context(), slot, "ops", 0)
	require.NoError(g.t, err)
	return link.URL
}

// consent goes from a link to the callback's URL, over HTTP at the provider too.
func (g *ground) consent(b *browser, link string) string {
	g.t.Helper()
	return g.visit(b, b.click(link))
}

// visit opens an authorization URL, where the browser's user consents at once, and returns where the provider sends the browser.
func (g *ground) visit(b *browser, target string) string {
	g.t.Helper()
	resp, err := b.client.Get(target)
	require.NoError(g.t, err)
	require.NoError(g.t, resp.Body.Close())
	require.Equal(g.t, http.StatusSeeOther, resp.StatusCode)
	return resp.Header.Get("Location")
}

func (g *ground) connect(b *browser, slot tokenstore.Slot) {
	g.t.Helper()
	sent := b.get(g.consent(b, g.linkFor(slot)))
	require.Equal(g.t, http.StatusSeeOther, sent.status, sent.body)
}

// state is everything that an attack might have changed, byte for byte as it is stored.
type state struct {
	rows, shelf map[string]string
	posts       int // to the token endpoints of both providers
}

func (g *ground) state() state {
	g.t.Helper()
	return state{g.dump("r"), g.dump("s"), g.posts()}
}

func (g *ground) posts() int { return g.provider.Count("") + g.hostile.Count("") }

// dump reads the connections ("r") or the shelf ("s") behind the replicas' backs.
func (g *ground) dump(kind string) map[string]string {
	g.t.Helper()
	ctx, found := g.t.Context(), map[string]string{}
	keys, err := g.redis.Keys(ctx, "bifrost:{*}:"+kind+":*").Result()
	require.NoError(g.t, err)
	for _, key := range keys {
		if kind == "s" {
			found[key] = g.redis.Get(ctx, key).Val()
			continue
		}
		fields := g.redis.HGetAll(ctx, key).Val()
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			found[key] += name + "=" + fields[name] + "\n"
		}
	}
	return found
}

// requireUntouched asserts that no connection, ticket or consent has changed and that no provider was asked.
func (g *ground) requireUntouched(before state, why ...any) {
	g.t.Helper()
	require.Equal(g.t, before, g.state(), why...)
}

// refused opens a URL and asserts that it is refused with this status and a page that says so, repeats nothing of the URL,
// leads nowhere and sets no cookie; it may remove one.
func (g *ground) refused(b *browser, target string, status int, says string) seen {
	g.t.Helper()
	got := b.get(target)
	g.requireRefusal(got, target, status, says)
	return got
}

func (g *ground) requireRefusal(got seen, target string, status int, says string) {
	g.t.Helper()
	require.Equal(g.t, status, got.status, got.body)
	require.Contains(g.t, got.body, says)
	require.NotContains(g.t, got.body, "CANARY")
	require.Empty(g.t, got.location)
	for _, cookie := range (&http.Response{Header: got.header}).Cookies() {
		require.Negative(g.t, cookie.MaxAge, "no cookie is set")
	}
	for pair := range strings.SplitSeq(mustParse(g.t, target).RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(value)
		if _, standard := denials[plain]; err == nil && len(plain) > 8 && !standard {
			require.NotContains(g.t, got.body, plain, "of the query")
		}
	}
}
