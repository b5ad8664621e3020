package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheGraphClientFollowsPages runs the Microsoft Graph JavaScript client: one call after another, and its PageIterator over
// pages that name the next one in their bodies, however these are written and sent.
func TestTheGraphClientFollowsPages(t *testing.T) {
	t.Parallel()
	sdkProgram{integration: "graph", script: "graphsdk.mjs", settings: "rewrite_links: true", api: graph}.start(t).expect(
		step{"users", `{"got": {"@odata.context": "BASE/v1.0/$metadata#users", "@odata.nextLink": "BASE/v1.0/users?$skiptoken=escaped",
			"value": [{"id": "acme-1", "displayName": "Ada Lovelace", "mySite": "https://acme.example/v1.0/ada"},
				{"id": "acme-2", "displayName": "Grace Hopper"}]}}`,
			[]string{"GET /v1.0/users"}},
		step{"some", `{"got": {"value": [{"id": "acme-1", "displayName": "Ada Lovelace"}]}}`,
			// fetch spells ' so
			[]string{"GET /v1.0/users?$select=id,displayName&$top=2&$expand=manager($select=id)&$filter=startsWith(displayName,%27A%27)"}},
		step{"one", `{"got": {"id": "acme-1", "displayName": "Ada Lovelace"}}`, []string{"GET /v1.0/users/acme-1"}},
		step{"made", `{"got": {"id": "acme-3", "displayName": "Ada"}}`, []string{"POST /v1.0/users"}},
		step{"nobody", `{"failed": {"status": 404, "code": "Request_ResourceNotFound"}}`, []string{"GET /v1.0/users/nobody"}},
		step{"pages", `{"got": {"users": 1030, "letters": 1048610, "complete": true}}`, []string{
			"GET /v1.0/users",
			"GET /v1.0/users?$skiptoken=escaped",
			"GET /v1.0/users?$top=2&$skiptoken=chunks", // the client's order
			"GET /v1.0/users?$skiptoken=large",
			"GET /v1.0/users?$skiptoken=last",
		}},
		step{"changes", `{"got": {"value": [], "@odata.deltaLink": "BASE/v1.0/users/delta?$deltatoken=now"}}`,
			[]string{"GET /v1.0/users/delta", "GET /v1.0/users/delta?$deltatoken=now"}},
	)
}

// TestALinkThatIsNotRewrittenGoesRoundBifrost shows that the other tests would notice: the same program follows the API's own
// link to the API, and takes its key there.
func TestALinkThatIsNotRewrittenGoesRoundBifrost(t *testing.T) {
	t.Parallel()
	s := sdkProgram{integration: "graph", script: "graphsdk.mjs", settings: "rewrite_links: false", api: graph}.start(t)
	require.JSONEq(t, `{"failed": {"status": 401, "code": null}}`, s.told("pages"))
	seen := s.api.record()
	require.Contains(t, seen.strangers, "GET /v1.0/users?$skiptoken=escaped")
	require.Contains(t, seen.leaks, "Authorization")
}

// graphPages are the pages of users by their $skiptoken, with UP for the API's own origin.
var graphPages = map[string]string{
	"": `{"@odata.context":"UP/v1.0/$metadata#users","@odata.nextLink":"UP/v1.0/users?$skiptoken=escaped","value":[` +
		`{"id":"acme-1","displayName":"Ada Lovelace","mySite":"https://acme.example/v1.0/ada"},{"id":"acme-2","displayName":"Grace Hopper"}]}`,
	"escaped": `{"value":[{"id":"acme-3","displayName":"Bob"},{"id":"acme-4","displayName":"Eve"}],` +
		`"@odata.nextLink" : "ESCAPED\/v1.0\/users?$top=2\u0026$skiptoken=chunks"}`,
	"chunks": `{"value":[{"id":"acme-5","displayName":"☃"}],"@odata.nextLink":"UP/v1.0/users?$skiptoken=large"}`,
	"large":  `{"value":[` + strings.Join(largeUsers(1024), ",") + `],"@odata.nextLink":"UP/v1.0/users?$skiptoken=last"}`,
	"last":   `{"value":[{"id":"acme-6","displayName":"Zoe"}]}`,
}

// largeUsers returns n users of a little more than 1 KiB each.
func largeUsers(n int) []string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf(`{"id":"large-%d","displayName":"%s"}`, i, strings.Repeat("x", 1024))
	}
	return users
}

// graph answers as Microsoft Graph does.
func graph(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	switch path := strings.TrimPrefix(r.URL.Path, "/v1.0/users"); {
	case r.Method == http.MethodPost && path == "":
		var made struct{ DisplayName string }
		if err := json.NewDecoder(r.Body).Decode(&made); err != nil {
			reply(w, r, http.StatusBadRequest, `{"error":{"code":"BadRequest","message":"No."}}`)
			return
		}
		reply(w, r, http.StatusCreated, fmt.Sprintf(`{"id":"acme-3","displayName":%q}`, made.DisplayName))
	case path == "" && query.Has("$select"):
		reply(w, r, http.StatusOK, `{"value":[{"id":"acme-1","displayName":"Ada Lovelace"}]}`)
	case path == "":
		graphPage(w, r, query.Get("$skiptoken"))
	case path == "/delta" && query.Has("$deltatoken"):
		reply(w, r, http.StatusOK, `{"value":[],"@odata.deltaLink":"UP/v1.0/users/delta?$deltatoken=now"}`)
	case path == "/delta":
		reply(w, r, http.StatusOK, `{"value":[{"id":"acme-1"}],"@odata.deltaLink":"UP/v1.0/users/delta?$deltatoken=now"}`)
	case path == "/acme-1":
		reply(w, r, http.StatusOK, `{"id":"acme-1","displayName":"Ada Lovelace"}`)
	default:
		reply(w, r, http.StatusNotFound, `{"error":{"code":"Request_ResourceNotFound","message":"No."}}`)
	}
}

// graphPage answers with a page of users: one of them with its slashes escaped, and one in pieces of three bytes, which come
// one by one.
func graphPage(w http.ResponseWriter, r *http.Request, token string) {
	page := strings.ReplaceAll(graphPages[token], "ESCAPED", `https:\/\/`+r.Host)
	if token != "chunks" {
		reply(w, r, http.StatusOK, page)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	rest := strings.ReplaceAll(page, "UP", "https://"+r.Host)
	for rest != "" {
		piece := rest[:min(3, len(rest))]
		rest = rest[len(piece):]
		_, _ = io.WriteString(w, piece)           // bifrost may have gone
		_ = http.NewResponseController(w).Flush() // as above
	}
}
