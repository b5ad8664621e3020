package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/config"
)

// recheck is how often a certificate's files are read again, at most: often enough that a renewal is served at once for
// people, seldom enough to cost nothing beside a handshake.
const recheck = time.Second

// certificate is a listener's TLS configuration, kept equal to its files. A pair that cannot be used leaves the old one in force.
type certificate struct {
	files   config.TLS
	log     *slog.Logger
	inForce atomic.Pointer[tls.Config]

	mu      sync.Mutex // guards the fields below
	checked time.Time
	seen    [][]byte // contents of the files at the last check
}

// newCertificate reads the files, which must be usable.
func newCertificate(files config.TLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log, checked: time.Now()}
	var err error
	if c.seen, err = c.read(); err != nil {
		return nil, err
	}
	cfg, err := parseCertificate(c.seen)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.CertFile, err)
	}
	c.inForce.Store(cfg)
	return c, nil
}

// server returns the configuration for a tls.Listener.
func (c *certificate) server() *tls.Config {
	cfg := c.inForce.Load().Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c.refresh()
		return c.inForce.Load(), nil
	}
	return cfg
}

// refresh reads the files if the last look is a while ago. A handshake that finds another one reading does not wait for it.
func (c *certificate) refresh() {
	if !c.mu.TryLock() {
		return
	}
	defer c.mu.Unlock()
	if time.Since(c.checked) < recheck {
		return
	}
	c.checked = time.Now()
	contents, err := c.read()
	if err != nil {
		c.log.Warn("a certificate file cannot be read; the old certificate stays", "error", err)
		return
	}
	if same(contents, c.seen) {
		return
	}
	c.seen = contents
	cfg, err := parseCertificate(contents)
	if err != nil {
		c.log.Error("the new certificate cannot be used; the old one stays", "cert_file", c.files.CertFile, "error", err)
		return
	}
	c.inForce.Store(cfg)
	c.log.Info("the certificate was renewed", "cert_file", c.files.CertFile, "not_after", cfg.Certificates[0].Leaf.NotAfter.UTC())
}

// read returns the contents of the certificate, the key and, if there is one, the client CA file.
func (c *certificate) read() ([][]byte, error) {
	var contents [][]byte
	for _, path := range []string{c.files.CertFile, c.files.KeyFile, c.files.ClientCAFile} {
		if path == "" {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		contents = append(contents, b)
	}
	return contents, nil
}

func same(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// parseCertificate turns what read returned into a configuration.
func parseCertificate(contents [][]byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if len(contents) == 3 {
		cfg.ClientCAs, cfg.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !cfg.ClientCAs.AppendCertsFromPEM(contents[2]) {
			return nil, errors.New("client_ca_file holds no certificate")
		}
	}
	return cfg, nil
}
