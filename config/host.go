package config

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// hostPort is a Host header that belongs to an integration.
func hostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if host = bracketed(host); err != nil {
		host, port = s, "443"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !validHost(host) {
		return "", errors.New("must be a host name without scheme and path, such as graph.example.com or localhost:8080")
	}
	return strings.ToLower(s), nil
}

// bracketed puts the brackets back that net.SplitHostPort takes off an IPv6 address.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// checkHosts reports an integration's host that is the proxy's own: it would hide every route.
func checkHosts(root *object, c *Config) {
	own, err := url.Parse(c.Proxy.PublicURL)
	if err != nil || own.Host == "" {
		return
	}
	list, _ := root.at("integrations").object()
	for _, in := range c.Integrations {
		o, _ := list.at(in.Name).object()
		for i, host := range in.Hosts {
			if strings.EqualFold(host, own.Host) {
				o.at("hosts").items()[i].problem("is the host of proxy.public_url: every route would be hidden")
			}
		}
	}
}
