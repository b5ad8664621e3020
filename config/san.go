package config

import (
	"errors"
	"net/mail"
	"net/netip"
	"net/url"
	"strings"
)

// readSANs reads the subject alternative names by which client certificates name a caller. Each may name one.
func readSANs(n node, seen unique) []string {
	var list []string
	for _, item := range n.fullItems() {
		var s string
		if set(item, &s, san) {
			seen.check(item, s)
			list = append(list, s)
		}
	}
	return list
}

// checkSANs reports names of certificates that nobody is asked for.
func checkSANs(root *object) {
	section, _ := root.at("proxy").object()
	files, _ := section.at("tls").object()
	if files.at("client_ca_file").given() {
		return
	}
	for _, item := range root.at("callers").items() {
		o, _ := item.object()
		if sans := o.at("sans"); sans.given() {
			sans.problem("needs proxy.tls with client_ca_file: without it no certificate is asked for, or checked")
		}
	}
}

// san is a subject alternative name (RFC 5280 section 4.2.1.6). It returns the one form that certificates are compared with:
// DNS names in lower case, addresses as netip writes them.
func san(s string) (string, error) {
	if strings.Contains(s, "://") {
		return uriSAN(s)
	}
	kind, name, _ := strings.Cut(s, ":")
	switch kind {
	case "dns":
		name = strings.ToLower(name)
		if _, ok := lastLabel(name); !ok {
			return "", errors.New("must be dns: and a host name such as jobs.example.com; a wildcard names nobody")
		}
	case "email":
		if a, err := mail.ParseAddress(name); err != nil || a.Address != name {
			return "", errors.New("must be email: and an address such as jobs@example.com")
		}
	case "ip":
		ip, err := netip.ParseAddr(name)
		if err != nil || ip.Zone() != "" {
			return "", errors.New("must be ip: and an address such as 10.1.2.3 or 2001:db8::1")
		}
		name = ip.Unmap().String()
	default:
		return "", errors.New("must be a URI such as spiffe://example.com/jobs, or dns:NAME, email:ADDRESS or ip:ADDRESS")
	}
	return kind + ":" + name, nil
}

// uriSAN is a URI in its only form: what a parser would change could be compared in two ways.
func uriSAN(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.String() != s || u.Host == "" || u.User != nil || u.Fragment != "" {
		return "", errors.New("must be a URI as it stands in the certificate, such as spiffe://example.com/jobs, without user and fragment")
	}
	return s, nil
}
