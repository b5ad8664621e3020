package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// jwtIssuers are a cluster at /cluster and a directory at /tenant/v2.0, each with discovery and keys.
type jwtIssuers struct {
	url     string
	fetches atomic.Int64 // of key sets

	mu   sync.Mutex // guards keys
	keys []jose.JSONWebKey
}

const tenant = "22222222-3333-4444-5555-666666666666"

func newJWTIssuers(t *testing.T) *jwtIssuers {
	t.Helper()
	i := &jwtIssuers{}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func (i *jwtIssuers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.url + name, "jwks_uri": i.url + name + "/keys"}) // a test notices
		return
	}
	i.fetches.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: i.keys})
}

// publish replaces the keys of both issuers.
func (i *jwtIssuers) publish(keys ...jose.JSONWebKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = nil
	for _, k := range keys {
		i.keys = append(i.keys, k.Public())
	}
}

func jwtKey(t *testing.T, id string, algorithm jose.SignatureAlgorithm) jose.JSONWebKey {
	t.Helper()
	k := jose.JSONWebKey{KeyID: id, Algorithm: string(algorithm), Use: "sig"}
	var err error
	if algorithm == jose.RS256 {
		k.Key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		k.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	require.NoError(t, err)
	return k
}

func signJWT(t *testing.T, k jose.JSONWebKey, claims, changes map[string]any) string {
	t.Helper()
	maps.Copy(claims, changes)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: k}, nil)
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

// pod is a token as Kubernetes projects it into a pod.
func (i *jwtIssuers) pod(t *testing.T, k jose.JSONWebKey, changes map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	return signJWT(t, k, map[string]any{
		"iss": i.url + "/cluster", "aud": []string{"bifrost"}, "sub": "system:serviceaccount:jobs:sync",
		"exp": now + 3607, "iat": now, "nbf": now, "jti": "CANARY-jti",
		"kubernetes.io": map[string]any{
			"namespace": "jobs", "pod": map[string]any{"name": "sync-1", "uid": "CANARY-uid"},
			"serviceaccount": map[string]any{"name": "sync", "uid": "CANARY-uid"}, "warnafter": now + 3000,
		},
	}, changes)
}

// app is a token as Entra gives to an application.
func (i *jwtIssuers) app(t *testing.T, k jose.JSONWebKey, changes map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	return signJWT(t, k, map[string]any{
		"iss": i.url + "/tenant/v2.0", "aud": "11111111-2222-3333-4444-555555555555", "sub": "CANARY-oid", "oid": "CANARY-oid",
		"exp": now + 3599, "iat": now, "nbf": now, "tid": tenant, "azp": "CANARY-app", "azpacr": "1", "roles": []string{"graph"}, "ver": "2.0",
	}, changes)
}

// withJWT lets in the subjects of the cluster that callers name, and the tenant's applications by their claims.
func (i *jwtIssuers) withJWT(_ *setup, text string) string {
	return strings.Replace(text, "integrations:\n", `  - {name: sync, subjects: [{issuer: ISSUER/cluster, subject: "system:serviceaccount:jobs:sync"}], orgs: [acme, globex], integrations: [graph]}
caller_jwt:
  - {issuer: ISSUER/cluster, audience: bifrost}
  - {issuer: ISSUER/tenant/v2.0, audience: 11111111-2222-3333-4444-555555555555, org_claim: tid, integrations_claim: roles}
integrations:
`, 1)
}

func (i *jwtIssuers) setup(t *testing.T) *setup {
	t.Helper()
	return newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		return strings.ReplaceAll(i.withJWT(s, text), "ISSUER", i.url)
	})
}

// as calls the proxy with a JWT for an org; without one there is no X-Org-ID.
func (s *setup) as(t *testing.T, token, org string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+"/graph/me", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	if org != "" {
		req.Header.Set("X-Org-ID", org)
	}
	return do(t, req)
}

func TestCallersWithJWTsOfKubernetesAndEntra(t *testing.T) {
	i := newJWTIssuers(t)
	cluster, directory := jwtKey(t, "cluster", jose.RS256), jwtKey(t, "directory", jose.RS256)
	i.publish(cluster, directory)
	s := i.setup(t)
	r := s.start(t)
	require.Zero(t, i.fetches.Load(), "keys are read when a token needs them")
	for _, org := range []string{"acme", tenant, "globex"} {
		s.connect(t, org)
	}
	pod, app := i.pod(t, cluster, nil), i.app(t, directory, nil)
	for name, row := range map[string]struct {
		token, org string
		status     int
		user       string
	}{
		"the pod, for an org of its entry":    {pod, "acme", 200, "acme"},
		"the pod, for the other":              {pod, "globex", 200, "globex"},
		"the pod, for another org":            {pod, tenant, 403, ""},
		"the pod names none of two orgs":      {pod, "", 400, ""},
		"another service account":             {i.pod(t, cluster, map[string]any{"sub": "system:serviceaccount:jobs:default"}), "acme", 403, ""},
		"a token for the API server":          {i.pod(t, cluster, map[string]any{"aud": "https://kubernetes.default.svc"}), "acme", 401, ""},
		"the app, for its tenant":             {app, tenant, 200, tenant},
		"the app, which is bound to it":       {app, "", 200, tenant},
		"the app, for another org":            {app, "acme", 403, ""},
		"an app without the role":             {i.app(t, directory, map[string]any{"roles": []string{"other"}}), "", 403, ""},
		"an app of another tenant's issuer":   {i.app(t, directory, map[string]any{"iss": i.url + "/other/v2.0"}), "", 401, ""},
		"an app that expired":                 {i.app(t, directory, map[string]any{"exp": time.Now().Unix() - 60}), "", 401, ""},
		"an app with a very long token":       {i.app(t, directory, map[string]any{"groups": strings.Repeat("g", 11<<10)}), "", 200, tenant},
		"an app with a token beyond 16 KiB":   {i.app(t, directory, map[string]any{"groups": strings.Repeat("g", 13<<10)}), "", 401, ""},
		"a key of the same configuration":     {callerKey, "acme", 200, "acme"},
		"a token that nobody signed":          {"eyJhbGciOiJub25lIn0." + strings.Split(app, ".")[1] + ".", "", 401, ""},
		"a pod that calls itself the app":     {i.pod(t, cluster, map[string]any{"tid": "acme", "roles": []string{"graph"}, "sub": "x"}), "acme", 403, ""},
		"the app with an org in another case": {i.app(t, directory, map[string]any{"tid": "ACME"}), "acme", 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.as(t, row.token, row.org)
			require.Equal(t, row.status, status, body)
			if row.user != "" {
				require.Contains(t, body, `"user":"`+row.user+`"`)
			}
		})
	}
	r.logged(t, "a JWT was refused")
	for _, secret := range []string{"CANARY-oid", "CANARY-app", "CANARY-jti", "CANARY-uid", "eyJ", "serviceaccount"} {
		require.False(t, r.stderr.contains(secret), secret)
	}
	_, metrics := fetch(t, "http://"+s.ops+"/metrics")
	require.NotContains(t, metrics, "CANARY")
	require.Equal(t, "1", s.metric(t, `bifrost_jwks_fetches_total{issuer="`+i.url+`/cluster",result="ok"}`))
}

func TestKeysOfAnIssuerRotateUnderLoad(t *testing.T) {
	i := newJWTIssuers(t)
	old, fresh := jwtKey(t, "old", jose.RS256), jwtKey(t, "new", jose.ES256)
	i.publish(old)
	s := i.setup(t)
	s.start(t)
	s.connect(t, tenant)
	first := i.app(t, old, nil)
	var current atomic.Value // the token that callers send
	current.Store(first)
	var served, failed atomic.Int64
	var callers sync.WaitGroup
	end := make(chan struct{})
	stop := sync.OnceFunc(func() { close(end); callers.Wait() })
	t.Cleanup(stop)
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if status, body := s.as(t, current.Load().(string), ""); status == http.StatusOK {
					served.Add(1)
				} else if failed.Add(1) == 1 {
					t.Errorf("%d %s", status, body)
				}
			}
		})
	}
	more := func() {
		t.Helper()
		until := served.Load() + 100
		require.Eventually(t, func() bool { return served.Load() >= until }, patience, pollTime)
	}
	more()
	i.publish(old, fresh)
	current.Store(i.app(t, fresh, nil))
	more()
	stop()
	require.Zero(t, failed.Load())
	status, _ := s.as(t, first, "")
	require.Equal(t, http.StatusOK, status, "the old key is still published")

	// The old key goes: whatever has the set read again ends its tokens, here a token by a key that nobody knows.
	i.publish(fresh)
	stranger := jwtKey(t, "stranger", jose.ES256)
	require.Eventually(t, func() bool {
		_, _ = s.as(t, i.app(t, stranger, nil), "")
		status, _ := s.as(t, first, "")
		return status == http.StatusUnauthorized
	}, patience, time.Second)
	status, body := s.as(t, current.Load().(string), "")
	require.Equal(t, http.StatusOK, status, body)
}

// An address that others reach needs no keys where JWTs are asked for; and a reload may not take them away.
func TestJWTsGuardAReachableListener(t *testing.T) {
	i := newJWTIssuers(t)
	key := jwtKey(t, "one", jose.RS256)
	i.publish(key)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		_, port, _ := strings.Cut(s.proxy, ":")
		before, after, _ := strings.Cut(text, "callers:")
		_, after, _ = strings.Cut(after, "integrations: [\"*\"]}\n")
		return strings.Replace(before, "proxy: {listen: "+s.proxy, `proxy: {listen: ":`+port+`"`, 1) +
			"caller_jwt: {issuer: " + i.url + "/tenant/v2.0, audience: 11111111-2222-3333-4444-555555555555, org_claim: tid}\n" + after
	})
	r := s.start(t)
	s.connect(t, tenant)
	token := i.app(t, key, nil)
	status, body := s.as(t, token, "")
	require.Equal(t, http.StatusOK, status, body)
	status, _ = s.as(t, "wrong", tenant)
	require.Equal(t, http.StatusUnauthorized, status)

	raw, err := os.ReadFile(s.config)
	require.NoError(t, err)
	text := string(raw)
	s.write(t, strings.Replace(text, "log: {level: debug}", "log: {level: info}", 1))
	r.logged(t, "the configuration was reloaded")
	status, body = s.as(t, i.app(t, key, map[string]any{"jti": "after the reload"}), "")
	require.Equal(t, http.StatusOK, status, body)
	require.EqualValues(t, 1, i.fetches.Load(), "a reload forgets no key")

	var open strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "caller_jwt:") {
			open.WriteString(strings.Replace(line, `proxy: {listen: ":`, `proxy: {listen: "127.0.0.1:`, 1))
		}
	}
	s.write(t, open.String())
	r.logged(t, "the address in force is not loopback: callers or caller_jwt")
	status, _ = s.as(t, "wrong", tenant)
	require.Equal(t, http.StatusUnauthorized, status)
}
