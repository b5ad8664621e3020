package e2e_test

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// chaos is an installation of three replicas on a Redis with a replica and a Sentinel, and all that is seen of it.
type chaos struct {
	t        *testing.T
	seed     uint64
	dir      string
	key      string // of the store, base64
	idp      *chaosProvider
	upstream *chaosUpstream
	redis    *storetest.RedisSentinel
	nodes    []*chaosNode
	orgs     []string
	timeline *timeline

	mu       sync.Mutex // guards what follows
	requests []chaosRequest
	revoked  map[string]time.Time // by the test, on purpose
}

func newChaos(t *testing.T, seed uint64) *chaos {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	c := &chaos{
		t: t, seed: seed, dir: t.TempDir(), key: base64.StdEncoding.EncodeToString(key),
		redis: storetest.StartSentinel(t), revoked: map[string]time.Time{}, timeline: newTimeline(),
	}
	c.idp = newChaosProvider(t, c.random("provider"))
	c.upstream = newChaosUpstream(t, c.idp.Provider)
	for i := range 3 {
		c.nodes = append(c.nodes, c.newNode(fmt.Sprintf("node-%d", i)))
	}
	for i := range chaosOrgs {
		c.orgs = append(c.orgs, fmt.Sprintf("org-%d", i))
	}
	var starts sync.WaitGroup
	for _, n := range c.nodes {
		starts.Go(func() {
			if err := n.launch(); err != nil {
				t.Error(err)
			}
		})
	}
	starts.Wait()
	require.False(t, t.Failed())
	c.adopt()
	c.timeline.began = time.Now()
	return c
}

// random returns a source of its own for everybody who needs one, so that the order of goroutines changes nothing.
func (c *chaos) random(who string) *mathrand.Rand {
	sum := uint64(0)
	for _, b := range []byte(who) {
		sum = sum*31 + uint64(b)
	}
	return mathrand.New(mathrand.NewPCG(c.seed, sum))
}

// newNode lays a replica's links and writes its configuration. The token URL is the same for all, for a grant belongs to it;
// token_params tell whose POST it is.
func (c *chaos) newNode(name string) *chaosNode {
	t := c.t
	n := &chaosNode{chaos: c, name: name, config: filepath.Join(c.dir, name+".yaml"), client: newClient()}
	t.Cleanup(n.client.CloseIdleConnections)
	t.Cleanup(func() {
		for _, life := range n.lives {
			_ = life.cmd.Process.Kill() // most have ended
			<-life.exited
		}
	})
	n.client.Timeout = 15 * time.Second // longer than a caller may have to wait
	n.links = newChaosLinks(t, name, []string{c.redis.Primary.Addr, c.redis.Replica.Addr}, c.redis.Sentinel.Addr, c.idp.inside)
	c.idp.reach(name, n.links.provider.Listen)
	proxy, auth, ops := storetest.FreeAddr(t), storetest.FreeAddr(t), storetest.FreeAddr(t)
	n.proxy, n.auth, n.ops = "http://"+proxy, "http://"+auth, "http://"+ops
	n.env = []string{
		"OPERATOR=" + operatorToken, "CALLER=" + callerKey, "SECRET=" + c.idp.ClientSecret(), "KEY=" + c.key,
		"REDIS=redis://" + n.links.sentinel + "?master_name=main",
	}
	text := strings.NewReplacer("PROXY", proxy, "AUTH", auth, "OPS", ops, "IDP", c.idp.outside, "UPSTREAM", c.upstream.url,
		"NODE", name, "TIMEOUT", tokenTime.String()).Replace(chaosConfig)
	require.NoError(t, os.WriteFile(n.config, []byte(text), 0o600))
	return n
}

const chaosConfig = `
proxy: {listen: PROXY}
auth:
  listen: AUTH
  operators:
    - {name: ops, token: {env: OPERATOR}}
ops: {listen: OPS}
log: {level: debug, requests: false}
store: {redis: {url: {env: REDIS}}}
encryption_keys:
  - {id: k1, env: KEY}
callers:
  - {name: workflows, key: {env: CALLER}, orgs: ["*"], integrations: ["*"]}
integrations:
  graph:
    route: /graph
    upstream: UPSTREAM
    client_id: client-1
    client_secret: {env: SECRET}
    authorization_url: IDP/authorize
    token_url: IDP/token
    token_params: {node: NODE}
    scopes: read
    refresh_tokens: one_time
    fallback: none
    timeouts: {token: TIMEOUT}
`

// adopt gives every org a connection.
func (c *chaos) adopt() {
	c.t.Helper()
	var all sync.WaitGroup
	failures := make(chan string, len(c.orgs))
	for i, n := range c.nodes {
		all.Go(func() {
			for j := i; j < len(c.orgs); j += len(c.nodes) {
				body := fmt.Sprintf(`{"refresh_token":%q}`, c.idp.Issue(c.orgs[j], "read").Refresh)
				req, err := http.NewRequest(http.MethodPut, n.auth+"/api/v1"+connectionPath(c.orgs[j])+"/grant", strings.NewReader(body))
				if err != nil {
					failures <- err.Error()
					return
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Authorization", "Bearer "+operatorToken)
				if got := outcome(n.do(req)); got != "200" {
					failures <- got
				}
			}
		})
	}
	all.Wait()
	close(failures)
	for failure := range failures {
		c.t.Error("an import failed:", failure)
	}
	require.False(c.t, c.t.Failed())
}

// store opens the store as it stands in the end.
func (c *chaos) store() *tokenstore.Redis {
	c.t.Helper()
	key, err := base64.StdEncoding.DecodeString(c.key)
	require.NoError(c.t, err)
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "k1", Bytes: key})
	require.NoError(c.t, err)
	s, err := tokenstore.NewRedis(c.t.Context(), tokenstore.RedisConfig{URL: c.redis.URL, Keys: keys})
	require.NoError(c.t, err)
	return s
}
