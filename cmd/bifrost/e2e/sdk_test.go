package e2e_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// sdkKey is the key of a caller that is bound to acme: no header of an SDK names an org.
const sdkKey = "CANARY-acme-key"

// sdkProgram is a program that uses a provider's SDK, and the API that it uses.
type sdkProgram struct {
	integration string
	script      string
	settings    string           // further keys of the integration, in YAML
	basePath    string           // of the API
	api         http.HandlerFunc // answers what comes with a good token of acme
}

// runningSDK is such a program behind bifrost. All that it gets are bifrost's address and a caller's key. It could reach the API
// without bifrost too: it trusts its certificate.
type runningSDK struct {
	t       *testing.T
	api     *recorder
	replica *replica
	base    string // what stands for the API's base URL
	script  *script
}

// step is one call of a program, or several, and what comes of it.
type step struct {
	name  string
	told  string   // JSON: {"got": …} or {"failed": …}; BASE stands for the base URL
	asked []string // method and target of what reaches the API, byte for byte
}

// start runs the program until the test ends.
func (p sdkProgram) start(t *testing.T) *runningSDK {
	t.Helper()
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	s := newSite(t, idp)
	cert := writeCertificate(t, s.dir)
	api := newRecorder(t, idp, cert, p.api)

	s.replace("{listen: PROXY}", "{listen: PROXY, tls: {cert_file: tls.crt, key_file: tls.key}}")
	s.replace("callers:", "callers:\n  - {name: acme-jobs, key: {env: ACME}, orgs: [acme], integrations: ["+p.integration+"]}")
	s.replace("graph:\n    route: /graph", p.integration+":\n    route: /"+p.integration)
	s.replace("upstream: "+idp.BaseURL+"/api", "upstream: "+api.URL+p.basePath+"\n    "+p.settings)
	s.binary = built.raced
	s.env["ACME"], s.env["SSL_CERT_FILE"] = sdkKey, cert
	r := s.start()
	r.adoptAt(p.integration, idp, "acme")

	base := strings.Replace(r.proxy, "http:", "https:", 1) + "/" + p.integration
	sdk := startScript(t, p.script, map[string]string{"base_url": base, "key": sdkKey}, "NODE_EXTRA_CA_CERTS="+cert)
	sdk.await(t, "the end", patience, named("end"))
	return &runningSDK{t: t, api: api, replica: r, base: base, script: sdk}
}

// expect checks every step of the program, and that all its requests took the way through bifrost.
func (s *runningSDK) expect(steps ...step) {
	s.t.Helper()
	var asked []string
	for _, want := range steps {
		require.JSONEq(s.t, strings.ReplaceAll(want.told, "BASE", s.base), s.told(want.name), want.name)
		asked = append(asked, want.asked...)
	}
	seen := s.api.record()
	require.Equal(s.t, asked, seen.asked)
	require.Empty(s.t, seen.strangers, "a request has gone round bifrost")
	require.Empty(s.t, seen.leaks, "the key of a caller must not reach the API")
	require.Eventually(s.t, func() bool {
		return s.replica.metric("bifrost_requests_total", `origin="upstream"`) == float64(len(asked))
	}, patience, pollTime, "bifrost must count every request that the API has seen")
}

// told returns what came of a step.
func (s *runningSDK) told(name string) string {
	s.t.Helper()
	found := s.script.await(s.t, name, patience, named(name))
	delete(found, "event")
	told, err := json.Marshal(found)
	require.NoError(s.t, err)
	return string(told)
}

// recorder is an API that takes down what it is asked, and answers good tokens of acme alone. No program has one: a request
// with such a token has come through bifrost. Answers are compressed for those who can read that, as every large API does.
type recorder struct {
	*httptest.Server
	idp    *authflowtest.Provider
	answer http.HandlerFunc

	mu   sync.Mutex // guards seen
	seen record
}

// record is what an API has seen.
type record struct {
	asked     []string // method and target, byte for byte
	strangers []string // those among them without a good token
	leaks     []string // where the key of a caller stood
}

// newRecorder serves an API over TLS with the certificate, whose key lies beside it.
func newRecorder(t *testing.T, idp *authflowtest.Provider, cert string, answer http.HandlerFunc) *recorder {
	t.Helper()
	rec := &recorder{idp: idp, answer: answer}
	pair, err := tls.LoadX509KeyPair(cert, filepath.Join(filepath.Dir(cert), "tls.key"))
	require.NoError(t, err)
	rec.Server = httptest.NewUnstartedServer(rec)
	rec.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	rec.EnableHTTP2 = true
	rec.StartTLS()
	t.Cleanup(rec.Close)
	return rec
}

func (rec *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	token, ok := rec.idp.Authenticate(r)
	ok = ok && token.User == "acme"
	rec.note(r, body, ok)
	if !ok {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		zipped := &zippedAnswer{ResponseWriter: w}
		defer zipped.close()
		w = zipped
	}
	rec.answer(w, r)
}

func (rec *recorder) note(r *http.Request, body []byte, ok bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	request := r.Method + " " + r.RequestURI
	rec.seen.asked = append(rec.seen.asked, request)
	if !ok {
		rec.seen.strangers = append(rec.seen.strangers, request)
	}
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, " "), sdkKey) {
			rec.seen.leaks = append(rec.seen.leaks, name)
		}
	}
	if strings.Contains(request, sdkKey) || bytes.Contains(body, []byte(sdkKey)) {
		rec.seen.leaks = append(rec.seen.leaks, request)
	}
}

func (rec *recorder) record() record {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.seen
}

// zippedAnswer compresses an answer's body.
type zippedAnswer struct {
	http.ResponseWriter
	zip *gzip.Writer // nil: there is no body
}

func (z *zippedAnswer) WriteHeader(status int) {
	if status != http.StatusNotModified {
		z.Header().Set("Content-Encoding", "gzip")
		z.zip = gzip.NewWriter(z.ResponseWriter)
	}
	z.ResponseWriter.WriteHeader(status)
}

func (z *zippedAnswer) Write(p []byte) (int, error) {
	if z.zip == nil {
		z.WriteHeader(http.StatusOK)
	}
	return z.zip.Write(p)
}

// FlushError implements what http.ResponseController asks for.
func (z *zippedAnswer) FlushError() error {
	if z.zip != nil {
		if err := z.zip.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(z.ResponseWriter).Flush()
}

func (z *zippedAnswer) close() {
	if z.zip != nil {
		_ = z.zip.Close() // bifrost may have gone
	}
}

// reply answers with JSON, in which UP stands for the API's own origin.
func reply(w http.ResponseWriter, r *http.Request, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, strings.ReplaceAll(body, "UP", "https://"+r.Host)) // bifrost may have gone
}

// writeCertificate makes tls.crt and tls.key for loopback, signed by themselves, and returns the path of the certificate.
func writeCertificate(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bifrost-e2e"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	write("tls.key", "PRIVATE KEY", pkcs8)
	return write("tls.crt", "CERTIFICATE", cert)
}
