package main

import (
	"crypto/rand"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// newProvider returns a strict provider: PKCE, one client secret, refresh tokens that work once and whose reuse ends the grant.
func newProvider(base string, life time.Duration) *authflowtest.Provider {
	var p *authflowtest.Provider
	p = authflowtest.NewProvider(authflowtest.Config{
		BaseURL: base, ClientID: "bifrost-demo", ClientSecret: rand.Text(), RedirectURIs: []string{},
		Lifetime: life, Refresh: authflowtest.OneTime, IDToken: true,
		Consent: func(w http.ResponseWriter, r *http.Request) (string, bool) { return consent(p, w, r) },
	})
	return p
}

// providerHandler adds to the provider what its administrator could do: end a user's grants.
func providerHandler(p *authflowtest.Provider) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", p)
	mux.HandleFunc("POST /break", func(w http.ResponseWriter, r *http.Request) {
		user := r.URL.Query().Get("user")
		p.RevokeUser(user)
		fmt.Fprintf(w, "The grants of %q are revoked.\n", user)
	})
	return mux
}

// consent is the provider's two pages: who are you, and do you allow this.
func consent(p *authflowtest.Provider, w http.ResponseWriter, r *http.Request) (user string, done bool) {
	page := consentPage{User: strings.TrimSpace(r.PostFormValue("user"))}
	switch decision := r.PostFormValue("decision"); {
	case page.User == "":
		page.Suggestions = suggestions(r.URL.Path)
	case decision == "allow":
		return page.User, true
	case decision == "deny":
		p.Deny(w, r, "access_denied")
		return "", false
	default:
		page.Directory = directoryOf(page.User)
		page.Scopes = scopesOf(r.URL.Query().Get("scope"))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = consentTemplate.Execute(w, page) // the browser may have gone
	return "", false
}

// suggestions are the users to sign in as at a tenant, such as /acme.example/authorize.
func suggestions(path string) []string {
	tenant, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if org, _, ok := strings.Cut(tenant, "."); ok {
		return []string{org + "-admin"}
	}
	return []string{"platform-admin", "initech-admin"}
}

// scope is one line of the consent page.
type scope struct{ Name, Means string }

func scopesOf(requested string) []scope {
	var scopes []scope
	for _, name := range strings.Fields(requested) {
		switch name {
		case "offline_access":
			scopes = append(scopes, scope{name, "Keep this access when nobody is signed in"})
		case "Directory.Read.All":
			scopes = append(scopes, scope{name, "Read all users of the directory"})
		default:
			scopes = append(scopes, scope{name, ""})
		}
	}
	return scopes
}

type consentPage struct {
	User, Directory string
	Suggestions     []string
	Scopes          []scope
}

var consentTemplate = template.Must(template.New("consent").Parse(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{if .User}}Permissions requested{{else}}Sign in{{end}} · Demo ID</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5d6679; --line: #d9dee8; --page: #eef1f6; --card: #fff; --blue: #0b62c4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --soft: #9aa4b8; --line: #39425a; --page: #141926; --card: #1e2536; --blue: #3f8ee8; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { width: min(26rem, 92vw); padding: 2.2rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px; box-shadow: 0 8px 30px #0f172a1a; }
.brand { display: flex; gap: .5rem; align-items: center; font-weight: 600; color: var(--soft); }
.brand i { width: 1.1rem; height: 1.1rem; border-radius: 4px; background: linear-gradient(135deg, var(--blue), #38b6a5); }
h1 { font-size: 1.45rem; line-height: 1.25; margin: 1.1rem 0 .4rem; }
p { margin: 0 0 1rem; color: var(--soft); }
strong { color: var(--ink); }
ul { list-style: none; margin: 0 0 1.5rem; padding: 0; border-top: 1px solid var(--line); }
li { padding: .6rem 0; border-bottom: 1px solid var(--line); }
li code { display: block; color: var(--soft); font-size: .8rem; }
label { display: block; font-size: .9rem; margin-bottom: .3rem; }
input { width: 100%; font: inherit; padding: .55rem .7rem; border: 1px solid var(--line); border-radius: 6px; background: transparent; color: inherit; }
.row { display: flex; gap: .6rem; justify-content: flex-end; margin-top: 1.4rem; }
button { font: inherit; padding: .5rem 1.2rem; border: 1px solid var(--line); border-radius: 6px; background: transparent; color: inherit; cursor: pointer; }
button.primary { background: var(--blue); border-color: var(--blue); color: #fff; }
</style>
</head>
<body>
<main>
<div class="brand"><i></i>Demo ID</div>
{{if .User}}
<h1>Permissions requested</h1>
<p><strong>Bifrost demo</strong> asks <strong>{{.User}}</strong> for access to the directory <strong>{{.Directory}}</strong>:</p>
<ul>{{range .Scopes}}<li>{{.Means}} <code>{{.Name}}</code></li>{{end}}</ul>
<form method="post">
<input type="hidden" name="user" value="{{.User}}">
<div class="row"><button name="decision" value="deny">Cancel</button><button class="primary" name="decision" value="allow">Accept</button></div>
</form>
{{else}}
<h1>Sign in</h1>
<p>Any name will do, and there is no password: this provider is part of the demo.</p>
<form method="post">
<label for="user">User</label>
<input id="user" name="user" list="users" value="{{index .Suggestions 0}}" required="required" autofocus="autofocus" autocomplete="off" spellcheck="false" />
<datalist id="users">{{range .Suggestions}}<option value="{{.}}"></option>{{end}}</datalist>
<div class="row"><button class="primary">Next</button></div>
</form>
{{end}}
</main>
</body>
</html>
`))
