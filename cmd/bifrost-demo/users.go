package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// directoryOf names the directory that a user administers: acme for acme-admin.
func directoryOf(user string) string { return strings.TrimSuffix(user, "-admin") }

// user is one entry of a directory, as Microsoft Graph spells it.
type user struct {
	ID                string `json:"id"`
	DisplayName       string `json:"displayName"`
	UserPrincipalName string `json:"userPrincipalName"`
}

func usersOf(directory string) []user {
	names := []string{"Ada Lovelace", "Edsger Dijkstra", "Grace Hopper", "Barbara Liskov", "Donald Knuth", "Frances Allen", "Tony Hoare"}
	users := make([]user, 0, len(names))
	for i, name := range names {
		first, _, _ := strings.Cut(strings.ToLower(name), " ")
		users = append(users, user{fmt.Sprintf("%s-%d", directory, i+1), name, first + "@" + directory + ".example"})
	}
	return users
}

// usersHandler serves /v1.0/users as Microsoft Graph does: an access token is required, and an answer that is not the last
// page carries the absolute URL of the next one.
func usersHandler(base string, authenticate func(*http.Request) (authflowtest.Token, bool)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1.0/users", func(w http.ResponseWriter, r *http.Request) {
		token, ok := authenticate(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			answer(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{
				"code": "InvalidAuthenticationToken", "message": "The access token is missing, expired or revoked.",
			}})
			return
		}
		query := r.URL.Query()
		page, next := paged(usersOf(directoryOf(token.User)), number(query, "$skiptoken", 0), number(query, "$top", 3))
		body := map[string]any{"@odata.context": base + "/v1.0/$metadata#users", "value": page}
		if next > 0 {
			query.Set("$skiptoken", strconv.Itoa(next))
			body["@odata.nextLink"] = base + "/v1.0/users?" + query.Encode()
		}
		answer(w, http.StatusOK, body)
	})
	return mux
}

// paged returns the page that begins at skip, and where the next one begins; 0: there is none.
func paged(users []user, skip, top int) (page []user, next int) {
	skip = min(skip, len(users))
	end := min(skip+max(top, 1), len(users))
	if end < len(users) {
		next = end
	}
	return users[skip:end], next
}

func number(query url.Values, name string, otherwise int) int {
	n, err := strconv.Atoi(query.Get(name))
	if err != nil || n < 0 {
		return otherwise
	}
	return min(n, 999)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}
