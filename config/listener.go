package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"
)

// Proxy is the data listener.
type Proxy struct {
	Listen            string // default 127.0.0.1:8080
	PublicURL         string // without trailing slash; empty: scheme and Host of the request
	TrustNetwork      bool
	IncludeConnectURL bool
	MaxConcurrent     int           // requests under way; default 20,000
	DrainDelay        time.Duration // default 0
	DrainTimeout      time.Duration // default 25 s
	BodyIdle          time.Duration // of a caller that sends nothing of its request's body; default 60 s
	WriteIdle         time.Duration // of a caller that takes nothing of its answer; default 10 min
	TLS               *TLS          // nil: plain HTTP
}

// Auth is the listener of consent, screen and API.
type Auth struct {
	Listen    string // default 127.0.0.1:8081
	PublicURL string // without trailing slash; default http(s)://{listen} on a loopback address
	Operators []Operator
	OIDC      *OIDC // nil: operators sign in by token only
	TLS       *TLS
}

// Ops is the listener of metrics and health.
type Ops struct {
	Listen        string // default 127.0.0.1:8082
	PProf         bool
	PerOrgMetrics *bool // nil: up to 1,000 connections
	TLS           *TLS
}

// TLS names the files of a listener's certificate: a pair that was readable and matching at Load. ClientCAFile may be empty.
type TLS struct{ CertFile, KeyFile, ClientCAFile string }

const (
	proxyListen = "127.0.0.1:8080"
	authListen  = "127.0.0.1:8081"
	opsListen   = "127.0.0.1:8082"
)

func readProxy(n node, keyed bool) Proxy {
	o, _ := n.object()
	p := Proxy{
		Listen: proxyListen, MaxConcurrent: 20_000, DrainTimeout: 25 * time.Second, BodyIdle: time.Minute, WriteIdle: 10 * time.Minute,
	}
	listen := o.at("listen")
	set(listen, &p.Listen, listenAddress)
	set(o.at("public_url"), &p.PublicURL, publicURL)
	setBool(o.at("trust_network"), &p.TrustNetwork)
	setBool(o.at("include_connect_url"), &p.IncludeConnectURL)
	set(o.at("max_concurrent"), &p.MaxConcurrent, count)
	set(o.at("drain_delay"), &p.DrainDelay, duration)
	set(o.at("drain_timeout"), &p.DrainTimeout, span)
	timeouts, _ := o.at("timeouts").object()
	set(timeouts.at("body_idle"), &p.BodyIdle, span)
	set(timeouts.at("write_idle"), &p.WriteIdle, span)
	timeouts.close()
	p.TLS = readTLS(o.at("tls"))
	if !loopbackAddress(p.Listen) && !keyed && !p.TrustNetwork {
		listen.problem("is not a loopback address: whoever reaches it could be any org; add callers or caller_jwt, or proxy.trust_network: true if the network itself keeps others out")
	}
	o.close()
	return p
}

func readAuth(n node, known []*Integration) Auth {
	o, _ := n.object()
	a := Auth{Listen: authListen}
	listen, public := o.at("listen"), o.at("public_url")
	set(listen, &a.Listen, listenAddress)
	set(public, &a.PublicURL, publicURL)
	a.Operators = readOperators(o.at("operators"), known)
	a.OIDC = readOIDC(o.at("oidc"), known)
	a.TLS = readTLS(o.at("tls"))
	local := loopbackAddress(a.Listen)
	if !local && !o.at("operators").lists() && !o.at("oidc").given() {
		listen.problem("is not a loopback address: whoever reaches it could connect and disconnect; add auth.operators or auth.oidc")
	}
	switch {
	case public.given():
	case !local:
		public.problem("is missing: with this listen address it cannot be guessed, and providers compare the redirect URI that begins with it")
	case a.TLS != nil:
		a.PublicURL = "https://" + a.Listen
	default:
		a.PublicURL = "http://" + a.Listen
	}
	o.close()
	return a
}

func readOps(n node) Ops {
	o, _ := n.object()
	ops := Ops{Listen: opsListen}
	set(o.at("listen"), &ops.Listen, listenAddress)
	setBool(o.at("pprof"), &ops.PProf)
	if per := o.at("per_org_metrics"); per.given() {
		ops.PerOrgMetrics = new(bool)
		setBool(per, ops.PerOrgMetrics)
	}
	ops.TLS = readTLS(o.at("tls"))
	o.close()
	return ops
}

// listenAddress is HOST:PORT; an empty host is every address, port 0 any free port.
func listenAddress(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host != "" && !validHost(bracketed(host)) {
		return "", errors.New("must be HOST:PORT, such as 127.0.0.1:8080 or :8080")
	}
	return s, nil
}

func loopbackAddress(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	return err == nil && loopback(host)
}

// checkPorts reports listeners that want the same port of the same address.
func checkPorts(root *object) {
	seen := unique{}
	for _, l := range []struct{ name, listen string }{{"proxy", proxyListen}, {"auth", authListen}, {"ops", opsListen}} {
		section, _ := root.at(l.name).object()
		n := section.at("listen")
		set(n, &l.listen, listenAddress)
		if !strings.HasSuffix(l.listen, ":0") { // any free port
			seen.check(n, l.listen)
		}
	}
}

// readTLS reads the names of a listener's certificate files, and checks the files. Nil: not given.
func readTLS(n node) *TLS {
	if !n.given() {
		return nil
	}
	o, ok := n.object()
	if !ok {
		return nil
	}
	cert, key, ca := o.need("cert_file"), o.need("key_file"), o.at("client_ca_file")
	t := &TLS{CertFile: cert.pem(), KeyFile: key.pem(), ClientCAFile: ca.pem()}
	if t.CertFile != "" && t.KeyFile != "" {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			cert.problem("is not, with key_file, a certificate in PEM and its private key")
		}
	}
	if t.ClientCAFile != "" {
		if pem, err := readSmall(t.ClientCAFile); err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			ca.problem("has no certificate in PEM")
		}
	}
	o.close()
	return t
}

// pem returns the path of a file that can be read, or nothing.
func (n node) pem() string {
	path, ok := n.filePath()
	if !ok {
		return ""
	}
	if _, err := readSmall(path); err != nil {
		n.problem("the file cannot be read: %s", cause(err))
		return ""
	}
	return path
}
