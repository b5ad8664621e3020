package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

// TestTheGraphClientListsUsers runs the Microsoft Graph JavaScript client with nothing changed but its base URL and its key,
// which is bound to one org: no header names an org.
func TestTheGraphClientListsUsers(t *testing.T) {
	t.Parallel()
	idp := newProvider(t, authflowtest.Config{Refresh: authflowtest.OneTime})
	graph := newDirectory(t, idp)
	s := newSite(t, idp)
	cert := writeCertificate(t, s.dir)
	s.replace("{listen: PROXY}", "{listen: PROXY, tls: {cert_file: "+filepath.Join(s.dir, "tls.crt")+", key_file: "+filepath.Join(s.dir, "tls.key")+"}}")
	s.replace("upstream: "+idp.BaseURL+"/api", "upstream: "+graph.URL)
	s.replace("callers:", "callers:\n  - {name: acme-jobs, key: {env: ACME}, orgs: [acme], integrations: [graph]}")
	s.env["ACME"] = "CANARY-acme-key"
	r := s.start()
	r.consent("acme")

	base := strings.Replace(r.proxy, "http:", "https:", 1) + "/graph"
	sdk := startScript(t, "graphsdk.mjs", map[string]string{"base_url": base, "key": s.env["ACME"]}, "NODE_EXTRA_CA_CERTS="+cert)
	end := sdk.await(t, "how it ended", patience, named("failed"))
	require.EqualValues(t, http.StatusNotFound, end["status"], "%v", end)
	require.Equal(t, "Request_ResourceNotFound", end.text("code"), "the upstream's own error reaches the program")

	var got struct {
		Users, Some struct{ Value []person }
		One, Made   person
	}
	listed, err := json.Marshal(sdk.await(t, "users", patience, named("listed")))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(listed, &got))
	require.Equal(t, []person{{"acme-1", "Ada Lovelace"}, {"acme-2", "Grace Hopper"}}, got.Users.Value)
	require.Equal(t, got.Users.Value, got.Some.Value)
	require.Equal(t, got.Users.Value[0], got.One)
	require.Equal(t, person{"acme-3", "Ada"}, got.Made)

	require.Equal(t, []string{
		"GET /v1.0/users",
		"GET /v1.0/users?$select=id,displayName&$top=2&$expand=manager($select=id)&$filter=startsWith(displayName,%27A%27)", // fetch spells ' so
		"GET /v1.0/users/acme-1",
		"POST /v1.0/users",
		"GET /v1.0/users/nobody",
	}, graph.asked())
	require.Empty(t, graph.keys(), "the key of a caller must not reach the upstream")
}

// person is a user as Microsoft Graph spells it.
type person struct {
	ID          string `json:"id"`
	DisplayName string `json:"displayName"`
}

// directory is an upstream that answers as Microsoft Graph does, to good tokens of acme alone.
type directory struct {
	*httptest.Server

	mu       sync.Mutex // guards the fields below
	requests []string   // method and target, byte for byte
	leaks    []string   // names of headers that hold a caller's key
}

func newDirectory(t *testing.T, idp *authflowtest.Provider) *directory {
	d := new(directory)
	people := []person{{"acme-1", "Ada Lovelace"}, {"acme-2", "Grace Hopper"}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.note(r)
		token, ok := idp.Authenticate(r)
		switch path := strings.TrimPrefix(r.URL.Path, "/v1.0/users"); {
		case !ok || token.User != "acme":
			problem(w, http.StatusUnauthorized, "InvalidAuthenticationToken")
		case r.Method == http.MethodPost && path == "":
			created := person{ID: "acme-3"}
			if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&created); err != nil {
				problem(w, http.StatusBadRequest, "BadRequest")
				return
			}
			reply(w, http.StatusCreated, created)
		case path == "":
			reply(w, http.StatusOK, map[string]any{"value": people})
		case path == "/acme-1":
			reply(w, http.StatusOK, people[0])
		default:
			problem(w, http.StatusNotFound, "Request_ResourceNotFound")
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *directory) note(r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, r.Method+" "+r.RequestURI)
	for name, values := range r.Header {
		if strings.Contains(strings.Join(values, " "), "CANARY-acme-key") {
			d.leaks = append(d.leaks, name)
		}
	}
}

func (d *directory) asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests
}

func (d *directory) keys() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaks
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // bifrost may have gone
}

// problem answers an error as Microsoft Graph spells it.
func problem(w http.ResponseWriter, status int, code string) {
	reply(w, status, map[string]any{"error": map[string]string{"code": code, "message": "No."}})
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
