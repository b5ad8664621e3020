package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority issues client certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	a := &authority{key: key, pool: x509.NewCertPool()}
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.pool.AddCert(a.cert)
	return a
}

// subject is whom a certificate is of.
type subject struct {
	common              string
	uris, hosts, emails []string
	ips                 []string
}

// issue makes a client certificate, good for an hour.
func (a *authority) issue(t *testing.T, n subject) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: n.common}, NotAfter: time.Now().Add(time.Hour).Truncate(time.Second),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: n.hosts, EmailAddresses: n.emails,
	}
	for _, uri := range n.uris {
		u, err := url.Parse(uri)
		require.NoError(t, err)
		template.URIs = append(template.URIs, u)
	}
	for _, ip := range n.ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// overTLS serves the bench's proxy once more, to clients of a, and returns the address.
func (b *bench) overTLS(t *testing.T, a *authority, clients tls.ClientAuthType) *httptest.Server {
	t.Helper()
	front := httptest.NewUnstartedServer(b.proxy)
	front.TLS = &tls.Config{ClientCAs: a.pool, ClientAuth: clients}
	front.Config.DisableGeneralOptionsHandler = true
	front.StartTLS()
	t.Cleanup(front.Close)
	return front
}

// showing is a client of front that shows a certificate; nil: none.
func showing(t *testing.T, front *httptest.Server, cert *tls.Certificate) http.RoundTripper {
	t.Helper()
	client := &tls.Config{RootCAs: rootsOf(front)}
	if cert != nil {
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: client}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// named has callers that their certificates alone name; each has the org of its name.
func named() change {
	return onConfig(func(c *Config) {
		c.Callers = []Caller{
			{Name: "jobs", SANs: []string{"spiffe://example.test/ns/a/sa/jobs", "dns:jobs.example.test", "email:Jobs@example.test", "ip:10.1.2.3", "ip:2001:db8::1"}},
			{Name: "files", SANs: []string{"spiffe://example.test/ns/a/sa/files", "dns:files.example.test"}},
		}
		for i := range c.Callers {
			c.Callers[i].Orgs, c.Callers[i].Integrations = []string{c.Callers[i].Name}, []string{"*"}
		}
	})
}

func TestWhomACertificateNames(t *testing.T) {
	a, b := newAuthority(t), start(t, nil, named())
	front := b.overTLS(t, a, tls.VerifyClientCertIfGiven)
	const jobs = "spiffe://example.test/ns/a/sa/jobs"
	for name, row := range map[string]struct {
		names subject
		want  string // the caller, and its org; empty: nobody
	}{
		"URI":                         {subject{uris: []string{jobs}}, "jobs"},
		"DNS name":                    {subject{hosts: []string{"jobs.example.test"}}, "jobs"},
		"DNS name in other case":      {subject{hosts: []string{"JOBS.Example.test"}}, "jobs"},
		"email address":               {subject{emails: []string{"Jobs@example.test"}}, "jobs"},
		"IPv4 address":                {subject{ips: []string{"10.1.2.3"}}, "jobs"},
		"IPv6 address":                {subject{ips: []string{"2001:db8::1"}}, "jobs"},
		"another caller":              {subject{uris: []string{"spiffe://example.test/ns/a/sa/files"}}, "files"},
		"two names of one caller":     {subject{uris: []string{jobs}, hosts: []string{"jobs.example.test"}}, "jobs"},
		"a name of nobody beside":     {subject{uris: []string{"spiffe://example.test/x", jobs}}, "jobs"},
		"names of two callers":        {subject{uris: []string{jobs}, hosts: []string{"files.example.test"}}, ""},
		"URIs of two callers":         {subject{uris: []string{"spiffe://example.test/ns/a/sa/files", jobs}}, ""},
		"nobody":                      {subject{uris: []string{"spiffe://example.test/x"}}, ""},
		"longer URI":                  {subject{uris: []string{jobs + "/"}}, ""},
		"URI in other case":           {subject{uris: []string{"spiffe://example.test/ns/a/sa/Jobs"}}, ""},
		"URI of another trust domain": {subject{uris: []string{"spiffe://example.test.evil.test/ns/a/sa/jobs"}}, ""},
		"URI with a query":            {subject{uris: []string{jobs + "?"}}, ""},
		"URI with a user":             {subject{uris: []string{"spiffe://x@example.test/ns/a/sa/jobs"}}, ""},
		"escaped URI":                 {subject{uris: []string{"spiffe://example.test/ns/a/sa/job%73"}}, ""},
		"wildcard":                    {subject{hosts: []string{"*.example.test"}}, ""},
		"longer DNS name":             {subject{hosts: []string{"a.jobs.example.test"}}, ""},
		"email address in other case": {subject{emails: []string{"jobs@example.test"}}, ""},
		"URI as a DNS name":           {subject{hosts: []string{"spiffe://example.test/ns/a/sa/jobs"}}, ""},
		"DNS name as an address":      {subject{emails: []string{"jobs.example.test"}}, ""},
		"common name":                 {subject{common: "jobs.example.test"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(b.requests())
			client := showing(t, front, a.issue(t, row.names))
			r, err := http.NewRequestWithContext(t.Context(), "GET", front.URL+"/graph/x", nil)
			require.NoError(t, err)
			r.Header.Set("Authorization", "Bearer of another meaning")
			res, err := client.RoundTrip(r)
			require.NoError(t, err)
			_ = res.Body.Close()
			if row.want == "" {
				require.Equal(t, 401, res.StatusCode)
				require.Len(t, b.requests(), before)
				return
			}
			require.Equal(t, 200, res.StatusCode)
			require.Equal(t, []string{"Bearer CANARY-token-" + row.want}, b.last(t).Header["Authorization"])
		})
	}
}

func TestACertificateThatNobodyVerifiedProvesNothing(t *testing.T) {
	a, b := newAuthority(t), start(t, nil, named())
	shown := subject{uris: []string{"spiffe://example.test/ns/a/sa/jobs"}}
	for name, cert := range map[string]*tls.Certificate{
		"from the right authority":  a.issue(t, shown),
		"from another of that name": newAuthority(t).issue(t, shown),
	} {
		t.Run(name, func(t *testing.T) {
			front := b.overTLS(t, a, tls.RequireAnyClientCert)
			r, err := http.NewRequestWithContext(t.Context(), "GET", front.URL+"/graph/x", nil)
			require.NoError(t, err)
			res, err := showing(t, front, cert).RoundTrip(r)
			require.NoError(t, err)
			_ = res.Body.Close()
			require.Equal(t, 401, res.StatusCode)
		})
	}
}

// shows is a request over a connection whose certificate has been verified.
func shows(cert *tls.Certificate) *http.Request {
	r := httptest.NewRequest("GET", "/graph/x", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert.Leaf}, VerifiedChains: [][]*x509.Certificate{{cert.Leaf}}}
	return r
}

func TestACertificateNamesNobodyAfterItsEnd(t *testing.T) {
	a, b := newAuthority(t), start(t, nil, named())
	r := shows(a.issue(t, subject{hosts: []string{"jobs.example.test"}}))
	end := r.TLS.PeerCertificates[0].NotAfter
	require.NotNil(t, b.proxy.callers.of(r, end))
	require.Nil(t, b.proxy.callers.of(r, end.Add(1)), "on a connection that was opened before")
}

func TestAKeyCountsBeforeACertificate(t *testing.T) {
	a := newAuthority(t)
	b := start(t, nil, named(), onConfig(func(c *Config) {
		c.Callers = append(c.Callers, Caller{Name: "keyed", Key: func() string { return callerKey }, Orgs: []string{"acme"}, Integrations: []string{"*"}})
	}))
	for name, row := range map[string]struct {
		header http.Header
		want   string
	}{
		"neither":                         {nil, "jobs"},
		"key in Authorization":            {http.Header{"Authorization": {"Bearer " + callerKey}}, "keyed"},
		"key in X-Bifrost-Key":            {http.Header{"X-Bifrost-Key": {callerKey}}, "keyed"},
		"wrong key in Authorization":      {http.Header{"Authorization": {"Bearer wrong"}}, "jobs"},
		"Authorization twice":             {http.Header{"Authorization": {"Bearer " + callerKey, "Bearer " + callerKey}}, "jobs"},
		"wrong key in X-Bifrost-Key":      {http.Header{"X-Bifrost-Key": {"wrong"}}, ""},
		"nothing in X-Bifrost-Key":        {http.Header{"X-Bifrost-Key": {""}}, ""},
		"X-Bifrost-Key twice":             {http.Header{"X-Bifrost-Key": {callerKey, callerKey}}, ""},
		"wrong X-Bifrost-Key, right key":  {http.Header{"X-Bifrost-Key": {"wrong"}, "Authorization": {"Bearer " + callerKey}}, ""},
		"right X-Bifrost-Key, other key":  {http.Header{"X-Bifrost-Key": {callerKey}, "Authorization": {"Bearer wrong"}}, "keyed"},
		"unknown scheme in Authorization": {http.Header{"Authorization": {"Negotiate x"}}, "jobs"},
	} {
		t.Run(name, func(t *testing.T) {
			r := shows(a.issue(t, subject{hosts: []string{"jobs.example.test"}}))
			r.Header = row.header
			c := b.proxy.callers.of(r, time.Now())
			if row.want == "" {
				require.Nil(t, c)
				return
			}
			require.NotNil(t, c)
			require.Equal(t, row.want, c.name)
		})
	}
}

func TestKnowingACallerAllocatesNothing(t *testing.T) {
	a := newAuthority(t)
	b := start(t, nil, named(), onConfig(func(c *Config) {
		c.Callers = append(c.Callers, Caller{Name: "keyed", Key: func() string { return callerKey }})
	}))
	byKey := shows(a.issue(t, subject{}))
	byKey.Header.Set("Authorization", "Bearer "+callerKey)
	for name, r := range map[string]*http.Request{
		"key": byKey,
		"certificate": shows(a.issue(t, subject{
			uris: []string{"spiffe://example.test/ns/a/sa/jobs"}, hosts: []string{"jobs.example.test"}, emails: []string{"x@example.test"}, ips: []string{"10.1.2.3"},
		})),
	} {
		now := time.Now()
		require.NotNil(t, b.proxy.callers.of(r, now), name)
		require.Zero(t, testing.AllocsPerRun(100, func() { b.proxy.callers.of(r, now) }), name)
	}
}

func TestATunnelEndsWithTheKeyOrCertificateOfItsCaller(t *testing.T) {
	var cfg Config
	b := start(t, echoing, websockets(nil), func(_ *bench, c *Config, r *Route) {
		c.Callers = []Caller{{Name: "jobs", Keys: []Key{{SHA256: digestOf(callerKey)}}, Orgs: []string{"*"}, Integrations: []string{"*"}}}
		cfg = *c
		cfg.Routes = []Route{*r}
	})
	b.proxy.tunnels.Follow(b.proxy)
	near := b.tunnel(t)
	near.echoes(t)
	cfg.Callers = []Caller{cfg.Callers[0]}
	cfg.Callers[0].Keys = []Key{{SHA256: digestOf(callerKey), NotAfter: time.Now().Add(-time.Second)}}
	next, err := New(cfg)
	require.NoError(t, err)
	b.proxy.tunnels.mu.Lock()
	b.proxy.tunnels.rules = next // as if its key had ended after the reload
	b.proxy.tunnels.mu.Unlock()
	near.ended(t)
	b.closedBecause(t, byLifetime)

	leaf := newAuthority(t).issue(t, subject{}).Leaf
	certified := &caller{certified: true}
	require.False(t, next.callers.ended(certified, leaf, leaf.NotAfter))
	require.True(t, next.callers.ended(certified, leaf, leaf.NotAfter.Add(1)))
}
