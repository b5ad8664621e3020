package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// writePair makes a self-signed certificate for loopback.
func writePair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	writePEM(t, filepath.Join(dir, "tls.crt"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, "tls.key"), "PRIVATE KEY", private)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

// served returns the name in the certificate that addr shows now, and the protocol that it agrees to.
func served(t *testing.T, addr string, own ...tls.Certificate) (name, protocol string) {
	t.Helper()
	// The test looks at the certificate itself: no authority knows it.
	client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: own}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, client)
	if err != nil {
		return "", err.Error()
	}
	defer conn.Close()
	state := conn.ConnectionState()
	return state.PeerCertificates[0].Subject.CommonName, state.NegotiatedProtocol
}

func withTLS(extra string) func(*setup, string) string {
	return func(s *setup, text string) string {
		return strings.Replace(text, "proxy: {listen: "+s.proxy,
			"proxy: {listen: "+s.proxy+", tls: {cert_file: tls.crt, key_file: tls.key"+extra+"}", 1)
	}
}

func TestRenewedCertificateIsServedWithoutARestart(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), withTLS(""))
	writePair(t, s.dir, "first")
	r := s.start(t)
	name, protocol := served(t, s.proxy)
	require.Equal(t, "first", name)
	require.Equal(t, "h2", protocol)

	writePair(t, s.dir, "second")
	require.Eventually(t, func() bool { name, _ := served(t, s.proxy); return name == "second" }, patience, pollTime)
	r.logged(t, "the certificate was renewed")

	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "tls.crt"), []byte("not a certificate"), 0o600))
	require.Eventually(t, func() bool {
		name, _ = served(t, s.proxy)
		require.Equal(t, "second", name, "a pair that cannot be used leaves the old one in force")
		return strings.Contains(r.stderr.String(), "the new certificate cannot be used")
	}, patience, pollTime)
}

func TestClientCertificateIsAskedForWhereConfigured(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), withTLS(", client_ca_file: tls.crt"))
	writePair(t, s.dir, "first")
	s.start(t)
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key"))
	require.NoError(t, err)

	get := func(own ...tls.Certificate) int {
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: own}}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + s.proxy + "/")
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	require.Zero(t, get(), "no client certificate, no connection")
	require.NotZero(t, get(pair))
}
