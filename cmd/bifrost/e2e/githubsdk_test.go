package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestOctokitFollowsLinks runs octokit, whose pagination takes the next page's address from the header Link, and which expands
// the address templates that answers hold.
func TestOctokitFollowsLinks(t *testing.T) {
	t.Parallel()
	sdkProgram{integration: "github", script: "githubsdk.mjs", settings: "rewrite_links: true", api: github}.start(t).expect(
		step{"all", `{"got": ["rocket", "rover", "probe", "lander", "base"]}`, []string{
			"GET /orgs/acme/repos?per_page=2",
			"GET /organizations/7/repos?per_page=2&page=2",
			"GET /organizations/7/repos?per_page=2&page=3",
		}},
		step{"first", `{"got": ["rocket", "rover"]}`, []string{"GET /orgs/acme/repos?per_page=2"}},
		step{"followed", `{"got": {"commit": {"sha": "c0de", "url": "BASE/repos/acme/rocket/commits/c0de"},
			"repo": {"name": "rocket", "commits_url": "BASE/repos/acme/rocket/commits{/sha}", "html_url": "https://github.example/acme/rocket"}}}`,
			[]string{"GET /repos/acme/rocket", "GET /repos/acme/rocket/commits/main"}},
		step{"created", `{"got": {"status": 201, "title": "Engine “3” → off"}}`, []string{"POST /repos/acme/rocket/issues"}},
		step{"unchanged", `{"failed": {"status": 304, "request": "C0DE:1"}}`, []string{"GET /repos/acme/rocket"}},
		step{"missing", `{"failed": {"status": 404, "request": "C0DE:1"}}`, []string{"GET /repos/acme/nothing"}},
	)
}

// github answers as GitHub does.
func github(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-GitHub-Request-Id", "C0DE:1")
	switch r.Method + " " + r.URL.Path {
	case "GET /orgs/acme/repos", "GET /organizations/7/repos":
		githubPage(w, r)
	case "GET /repos/acme/rocket":
		w.Header().Set("ETag", `"rocket-1"`)
		if r.Header.Get("If-None-Match") == `"rocket-1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		reply(w, r, http.StatusOK, `{"name":"rocket","commits_url":"UP/repos/acme/rocket/commits{/sha}",`+
			`"html_url":"https://github.example/acme/rocket"}`)
	case "GET /repos/acme/rocket/commits/main":
		reply(w, r, http.StatusOK, `{"sha":"c0de","url":"UP/repos/acme/rocket/commits/c0de"}`)
	case "POST /repos/acme/rocket/issues":
		var issue struct{ Title string }
		if err := json.NewDecoder(r.Body).Decode(&issue); err != nil {
			reply(w, r, http.StatusBadRequest, `{"message":"Problems parsing JSON"}`)
			return
		}
		title, _ := json.Marshal(issue.Title) // a string always works
		reply(w, r, http.StatusCreated, `{"number":1,"title":`+string(title)+`}`)
	default:
		reply(w, r, http.StatusNotFound, `{"message":"Not Found","documentation_url":"https://docs.github.example/rest","status":"404"}`)
	}
}

// githubPage answers with two repositories of five, and the addresses of the pages around them.
func githubPage(w http.ResponseWriter, r *http.Request) {
	pages := [][]string{{"rocket", "rover"}, {"probe", "lander"}, {"base"}}
	page := 1
	_, _ = fmt.Sscan(r.FormValue("page"), &page) // absent: the first
	var links []string
	link := func(rel string, page int) {
		target := fmt.Sprintf("https://%s/organizations/7/repos?per_page=%s&page=%d", r.Host, r.FormValue("per_page"), page)
		links = append(links, fmt.Sprintf("<%s>; rel=%q", target, rel))
	}
	if page > 1 {
		link("prev", page-1)
	}
	if page < len(pages) {
		link("next", page+1)
		link("last", len(pages))
	}
	if page > 1 {
		link("first", 1)
	}
	w.Header().Set("Link", strings.Join(links, ", "))
	var repos []string
	for _, name := range pages[page-1] {
		repos = append(repos, fmt.Sprintf(`{"name":%q,"url":"UP/repos/acme/%[1]s"}`, name))
	}
	reply(w, r, http.StatusOK, "["+strings.Join(repos, ",")+"]")
}
