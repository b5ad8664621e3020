package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// busy are callers who go on and on. Not one of their requests may fail.
type busy struct {
	stop    atomic.Bool
	working sync.WaitGroup
	done    atomic.Int64
}

// put starts three callers, whose requests send makes.
func put(t *testing.T, send func() (int, string)) *busy {
	t.Helper()
	b := &busy{}
	t.Cleanup(func() { b.end() })
	for range 3 {
		b.working.Go(func() {
			for !b.stop.Load() {
				if status, body := send(); status != http.StatusOK {
					t.Errorf("a call during the load: %d %s", status, body)
					return
				}
				b.done.Add(1)
			}
		})
	}
	b.passes(t)
	return b
}

// passes waits until requests that began after now have been answered.
func (b *busy) passes(t *testing.T) {
	t.Helper()
	enough := b.done.Load() + 10
	require.Eventually(t, func() bool { return b.done.Load() > enough || t.Failed() }, patience, pollTime)
}

func (b *busy) end() {
	b.stop.Store(true)
	b.working.Wait()
}

// callWith makes a request through the proxy with this header alone, if it has a name, to say who calls.
func (s *setup) callWith(client *http.Client, scheme, name, value string) (int, string) {
	req, err := http.NewRequest(http.MethodGet, scheme+"://"+s.proxy+"/graph/me", nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("X-Org-ID", "acme")
	if name != "" {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func TestACallersKeyIsReplacedUnderLoad(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	s.start(t)
	s.connect(t, "acme")
	const newKey = "CANARY-new-key"
	client := &http.Client{Timeout: patience}
	with := func(key string) func() (int, string) {
		return func() (int, string) { return s.callWith(client, "http", "Authorization", "Bearer "+key) }
	}
	becomes := func(key string, want int) {
		t.Helper()
		require.Eventually(t, func() bool { status, _ := with(key)(); return status == want }, patience, pollTime)
	}

	old := put(t, with(callerKey))
	both := fmt.Sprintf("key: {env: CALLER}, keys: [{key_sha256: %x}]", sha256.Sum256([]byte(newKey)))
	s.write(t, strings.Replace(s.text(), "key: {env: CALLER}", both, 1))
	becomes(newKey, http.StatusOK)
	young := put(t, with(newKey))
	old.passes(t)
	old.end() // the last caller has the new key

	s.write(t, strings.Replace(s.text(), "key: {env: CALLER}", fmt.Sprintf("key_sha256: %x", sha256.Sum256([]byte(newKey))), 1))
	becomes(callerKey, http.StatusUnauthorized)
	young.passes(t)
	young.end()
	t.Logf("%d calls with the old key, %d with the new one", old.done.Load(), young.done.Load())
}

// clientAuthority issues client certificates.
type clientAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newClientAuthority(t *testing.T) *clientAuthority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &clientAuthority{cert, key}
}

// issue makes a certificate of the name.
func (a *clientAuthority) issue(t *testing.T, uri string) *tls.Certificate {
	t.Helper()
	name, err := url.Parse(uri)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// trust writes the file of the authorities whose certificates count.
func (s *setup) trust(t *testing.T, authorities ...*clientAuthority) {
	t.Helper()
	var text []byte
	for _, a := range authorities {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	file := filepath.Join(s.dir, "clients.crt")
	require.NoError(t, os.WriteFile(file+".new", text, 0o600))
	require.NoError(t, os.Rename(file+".new", file))
}

// showing is a client that shows whichever certificate current holds, and resumes no TLS session.
func showing(t *testing.T, current *atomic.Pointer[tls.Certificate], keep bool) *http.Client {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: !keep, TLSClientConfig: &tls.Config{
		InsecureSkipVerify:   true, // the server's certificate is another test's
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: patience, Transport: transport}
}

func TestAClientCertificateIsRenewedUnderLoad(t *testing.T) {
	const jobs = "spiffe://example.test/ns/a/sa/jobs"
	first, second := newClientAuthority(t), newClientAuthority(t)
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(s *setup, text string) string {
		return certified(s, text, jobs)
	})
	writePair(t, s.dir, "server")
	s.trust(t, first)
	r := s.start(t)
	s.connect(t, "acme")
	var current atomic.Pointer[tls.Certificate]
	current.Store(first.issue(t, jobs))
	kept, fresh := showing(t, &current, true), showing(t, &current, false)
	status, body := s.callWith(kept, "https", "", "")
	require.Equal(t, http.StatusOK, status, body)

	calls := put(t, func() (int, string) { return s.callWith(fresh, "https", "", "") })
	current.Store(first.issue(t, jobs)) // its owner renews it
	calls.passes(t)
	s.trust(t, first, second) // and the authority is renewed, in three steps
	var theirs atomic.Pointer[tls.Certificate]
	theirs.Store(second.issue(t, jobs))
	require.Eventually(t, func() bool {
		status, _ := s.callWith(showing(t, &theirs, false), "https", "", "")
		return status == http.StatusOK
	}, patience, pollTime)
	current.Store(theirs.Load())
	calls.passes(t)
	s.trust(t, second)
	theirs.Store(first.issue(t, jobs))
	require.Eventually(t, func() bool { status, _ := s.callWith(showing(t, &theirs, false), "https", "", ""); return status == 0 }, patience, pollTime)
	calls.passes(t)
	calls.end()
	t.Logf("%d calls", calls.done.Load())

	current.Store(second.issue(t, jobs+"2"))
	status, body = s.callWith(fresh, "https", "", "")
	require.Equal(t, http.StatusUnauthorized, status, body)
	status, _ = s.callWith(fresh, "https", "X-Bifrost-Key", callerKey)
	require.Equal(t, http.StatusOK, status, "whom the certificate does not name a key may")
	status, _ = s.callWith(kept, "https", "", "")
	require.Equal(t, http.StatusOK, status, "a connection stays who it is")
	s.write(t, certified(s, s.text(), jobs+"2"))
	require.Eventually(t, func() bool { status, _ := s.callWith(fresh, "https", "", ""); return status == http.StatusOK }, patience, pollTime)
	status, _ = s.callWith(kept, "https", "", "")
	require.Equal(t, http.StatusUnauthorized, status, "but for the callers that there are now")
	require.NotContains(t, r.stderr.String(), "CANARY")
}

// certified has a caller that its certificates name, beside the one with a key.
func certified(s *setup, text, uri string) string {
	text = withTLS(", client_ca_file: clients.crt")(s, text)
	return strings.Replace(text, "callers:\n", "callers:\n  - {name: jobs, sans: [\""+uri+"\"], orgs: [acme], integrations: [\"*\"]}\n", 1)
}
