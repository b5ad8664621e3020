package proxy

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRules(t *testing.T) {
	for _, row := range []struct {
		rule, method, path string
		allowed, denied    bool
	}{
		{"GET /v1.0/users/**", "GET", "/v1.0/users", true, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/users/", true, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/users/7/messages", true, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/users2", false, false},
		{"GET /v1.0/users/**", "POST", "/v1.0/users", false, false},
		{"GET /v1.0/users/**", "GET", "/V1.0/users", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/%55SERS/7", false, true},
		{"GET /v1.0/users;x", "GET", "/v1.0/USERS;X", false, true},
		{"GET /Users/*/Messages", "GET", "/users/7/messages", false, true},
		{"GET /Users/*/Messages", "GET", "/users/7/message", false, false},
		{"GET /v1.0/users/**", "GET", "/v1.0/%75sers", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/%2575sers", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0//users", false, true},
		{"GET /v1.0/users/**", "GET", "//v1.0/users", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0%2Fusers", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/users;a=b/7", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0;/users%3Bx", false, true},
		{"GET /v1.0/users/**", "GET", "/v1.0/;x/users", false, true},
		{"GET /v1.0/users;x", "GET", "/v1.0/users;x", true, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/$batch", true, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/$batch/", false, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/%24batch", false, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/$batch/;x=1", false, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/$batch/%3B", false, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/$batch//;x/", false, true},
		{"POST /v1.0/$batch", "POST", "/v1.0/$batch/;x/y", false, false},
		{"GET /admin/*", "GET", "/admin/x/;y", false, true},
		{"GET /caf%C3%A9/**", "GET", "/caf%C3%A9/x", true, true},
		{"GET /caf%C3%A9/**", "GET", "/caf\u00e9/x", false, true},
		{"GET /caf%C3%A9/**", "GET", "/CAF%C3%89/x", false, true},
		{"GET /t%5B1%5D", "GET", "/t[1]", false, true},
		{"GET /users/a%40b", "GET", "/users/a@b", false, true},
		{"GET /users/a%40b", "GET", "/users/a%2540b", false, true},
		{"GET /a/*/c", "GET", "/a/b/c", true, true},
		{"GET /a/*/c", "GET", "/a/c", false, false},
		{"GET /a/*/c", "GET", "/a//c", false, false},
		{"GET /a/*/c", "GET", "/a/b/b/c", false, false},
		{"GET /a/*/c", "GET", "/a/b", false, false},
		{"GET /a/*/c", "GET", "/a/b%2Fc/c", true, true},
		{"* /**", "PATCH", "", true, true},
		{"* /**", "PATCH", "/", true, true},
		{"* /", "GET", "", true, true},
		{"* /", "GET", "/x", false, false},
		{"GET /a", "GET", "/a", true, true},
		{"GET /a", "GET", "/a/b", false, false},
	} {
		rules, err := parseRules([]string{row.rule})
		require.NoError(t, err)
		require.Equal(t, row.allowed, allowedBy(rules, row.method, row.path), "allow %q: %s %q", row.rule, row.method, row.path)
		require.Equal(t, row.denied, deniedBy(rules, row.method, row.path), "deny %q: %s %q", row.rule, row.method, row.path)
	}
}

func TestRulesThatCannotBeMeant(t *testing.T) {
	for _, text := range []string{"", "GET", "/x", "GET x", " /x", "GET /a*", "GET /**/b", "GET /a/***"} {
		_, err := parseRules([]string{text})
		require.Error(t, err, text)
	}
}
