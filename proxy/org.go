package proxy

import (
	"net/http"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// orgOf says for which org a request is, by its headers alone: an org, Global where the caller asks for it in so many words,
// or, with neither header, the one org that the caller is bound to. Omitted is never global.
func orgOf(h http.Header, c *caller) (tokenstore.Org, error) {
	ids, hasID := h["X-Org-Id"]
	scopes, hasScope := h["X-Org-Scope"]
	switch {
	case hasID && hasScope:
		return "", fail(codeOrgInvalid, "Send either X-Org-ID or X-Org-Scope, not both.")
	case hasScope:
		if len(scopes) != 1 || scopes[0] != "global" {
			return "", fail(codeOrgInvalid, "X-Org-Scope can only be: global.")
		}
		return tokenstore.Global, nil
	case hasID:
		if len(ids) != 1 || !tokenstore.Org(ids[0]).Valid() {
			return "", fail(codeOrgInvalid, "X-Org-ID must be one name of at most 128 letters, digits, dots, underscores and hyphens.")
		}
		return tokenstore.Org(ids[0]), nil
	case c != nil && c.onlyOrg != "":
		return c.onlyOrg, nil
	}
	return "", fail(codeOrgRequired, "Name the org in X-Org-ID, or ask for the global connection with X-Org-Scope: global.")
}

// wordBytes reports whether s has nothing but letters, digits, dots, underscores and hyphens.
func wordBytes(s string) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
