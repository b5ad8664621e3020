package authflow

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

//go:embed style.css
var stylesheet string

//go:embed templates/*.html
var templateFiles embed.FS

var (
	templates   = template.Must(template.ParseFS(templateFiles, "templates/*.html"))
	styleSource = hashSource(stylesheet)
)

// Page is an HTML page of the auth listener, in the look that all of them share. Whatever it shows, it is never stored, framed
// or named in a Referer, and it runs no inline script. The stylesheet is part of the page, so that a page needs no second
// request and works under any path prefix.
type Page struct {
	Title      string
	Body       template.HTML // already escaped: make it with html/template
	Nav        template.HTML // right side of the header bar, already escaped; empty: nothing
	Home       string        // where the product's name leads; empty: nowhere
	Wide       bool          // for tables
	FormAction []string      // sources besides our own origin that a form may lead to, by a redirect
	Script     string        // URL of our one script, of our own origin, or empty: no script may run
}

// Write sends the page. Only one page, SeeOther or error may be written per request.
func (p Page) Write(w http.ResponseWriter, status int) {
	var out bytes.Buffer
	data := struct {
		Page
		Style template.CSS
	}{p, template.CSS(stylesheet)}
	if err := templates.ExecuteTemplate(&out, "page", data); err != nil {
		panic(err) // the template and the type of its data are fixed: a bug, and a test renders every page
	}
	p.protect(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // a browser that has gone is not our failure
}

// SeeOther answers 303 to location with the headers of a page: the answer is not stored, and where it leads learns nothing
// of where it came from.
func SeeOther(w http.ResponseWriter, location string) {
	Page{}.protect(w.Header())
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// protect sets the headers that every answer of the auth listener to a browser carries. Browsers apply form-action to the
// redirect that answers a form too, which is why a form that leads to a provider has to name it.
func (p Page) protect(h http.Header) {
	policy := []string{
		"default-src 'none'",
		"style-src " + styleSource,
		"img-src data:",
		"base-uri 'none'",
		"frame-ancestors 'none'",
		"form-action " + strings.Join(append([]string{"'self'"}, p.FormAction...), " "),
	}
	if p.Script != "" {
		policy = append(policy, "script-src 'self'")
	}
	h.Set("Content-Security-Policy", strings.Join(policy, "; "))
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}

// hashSource is the CSP source expression that allows exactly this inline text.
func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// render executes one of our templates into the body of a page.
func render(name string, data any) template.HTML {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, data); err != nil {
		panic(err) // as in Write
	}
	return template.HTML(out.String())
}
