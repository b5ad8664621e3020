package authflowtest

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// serveAPI is a resource that wants an access token (RFC 6750) and answers whose it is.
func (p *Provider) serveAPI(w http.ResponseWriter, r *http.Request) {
	t, ok := p.Authenticate(r)
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"error":"invalid_token"}`)) // the client may have gone
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"user": t.User, "grant": t.Grant, "generation": t.Generation, "client": t.Client, "tenant": t.Tenant,
		"scopes": t.Scopes, "method": r.Method, "path": r.URL.EscapedPath(), "query": r.URL.RawQuery,
	})
}

// Authenticate takes the request down as a Sighting and reports whether its access token is good, for APIs beside the
// provider's own. The token is in the Authorization header, or else in the query parameter access_token.
func (p *Provider) Authenticate(r *http.Request) (Token, bool) {
	value := bearer(r, p.cfg.TokenType)
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	s := Sighting{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Header: r.Header.Clone(), Value: value, Time: now,
	}
	if t := p.ledger.find(Access, value); t != nil {
		s.Token = t.public(now, 0)
		s.OK = s.Token.Alive
	}
	p.record.sightings = append(p.record.sightings, s)
	return s.Token, s.OK
}

func bearer(r *http.Request, tokenType string) string {
	scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, tokenType)) {
		return value
	}
	return r.URL.Query().Get("access_token")
}
