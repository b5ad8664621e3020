package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/config"
)

func TestTLSFilesAreCheckedAndListed(t *testing.T) {
	dir := t.TempDir()
	makeCertificate(t, dir, "tls")
	makeCertificate(t, dir, "other")
	file := filepath.Join(dir, "bifrost.yaml")
	text := "auth: {tls: {cert_file: tls.crt, key_file: tls.key, client_ca_file: " + filepath.Join(dir, "other.crt") + "}}\n" + minimal(t)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))

	cfg := load(t, file)
	require.Equal(t, &config.TLS{
		CertFile:     filepath.Join(dir, "tls.crt"),
		KeyFile:      filepath.Join(dir, "tls.key"),
		ClientCAFile: filepath.Join(dir, "other.crt"),
	}, cfg.Auth.TLS)
	require.Equal(t, "https://127.0.0.1:8081", cfg.Auth.PublicURL)
	require.Equal(t, []string{file, filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "other.crt")}, cfg.Files())
}

func TestTLSFilesThatDoNotFitAreProblems(t *testing.T) {
	dir := t.TempDir()
	makeCertificate(t, dir, "tls")
	makeCertificate(t, dir, "other")
	for tls, want := range map[string]string{
		"cert_file: tls.crt, key_file: other.key":                           "1: ops.tls.cert_file: is not, with key_file, a certificate in PEM and its private key",
		"cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.key":    "1: ops.tls.client_ca_file: has no certificate in PEM",
		"cert_file: tls.crt, key_file: CANARY.key, client_ca_file: tls.crt": "1: ops.tls.key_file: the file cannot be read: no such file or directory",
	} {
		file := filepath.Join(dir, "bifrost.yaml")
		require.NoError(t, os.WriteFile(file, []byte("ops: {tls: {"+tls+"}}\n"+minimal(t)), 0o600))
		_, err := config.Load(file, badEnv)
		require.Equal(t, []string{want}, problems(t, err))
	}
}

// makeCertificate writes NAME.crt and NAME.key.
func makeCertificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for suffix, block := range map[string]*pem.Block{
		".crt": {Type: "CERTIFICATE", Bytes: cert},
		".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+suffix), pem.EncodeToMemory(block), 0o600))
	}
}
