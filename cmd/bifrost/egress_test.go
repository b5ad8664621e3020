package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/config"
)

func TestCheckRefusesUpstreamsThatEveryRequestWould(t *testing.T) {
	s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), nil)
	for lines, want := range map[string]string{
		"upstream: https://169.254.169.254/latest":                            "upstream: is a cloud's metadata service: it cannot be an upstream",
		"upstream: https://168.63.129.16\n    allow_private: [0.0.0.0/1]":     "upstream: is a cloud's metadata service: it cannot be an upstream",
		"upstream: https://[fe80::1]":                                         "upstream: is link-local: list the address in allow_private if you mean it",
		"upstream: https://[::ffff:169.254.1.1]":                              "upstream: is link-local: list the address in allow_private if you mean it",
		"upstream: https://x.example\n    allow_private: [\"fd00:ec2::254\"]": "allow_private[0]: is a cloud's metadata service: it cannot be an upstream",
	} {
		s.write(t, strings.Replace(s.text(), "upstream: "+s.idp.BaseURL+"/api", lines, 1))
		stdout, _, code := s.command(t, "check")
		require.Equal(t, 1, code, lines)
		require.Contains(t, stdout, ": integrations.graph."+want)
	}
	for _, lines := range []string{
		"upstream: https://169.254.1.1\n    allow_private: [169.254.0.0/16]",
		"upstream: https://10.0.0.5", "upstream: https://[fd12::1]", "upstream: http://[::1]:8080", "upstream: http://localhost:8080",
	} {
		s.write(t, strings.Replace(s.text(), "upstream: "+s.idp.BaseURL+"/api", lines, 1))
		stdout, _, code := s.command(t, "check")
		require.Equal(t, 0, code, stdout)
	}
}

func TestAllowPrivateReachesTheRoute(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	require.Equal(t, allow, route(&config.Integration{AllowPrivate: allow}).AllowPrivate)
}
