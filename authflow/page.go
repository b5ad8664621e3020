package authflow

import (
	"html/template"
	"net/http"
)

// Page is an HTML page of the auth listener: every one is sent with the headers of contract section 3.
type Page struct {
	Title      string
	Body       template.HTML // already escaped
	FormAction []string      // origins besides our own that a form may lead to, by a redirect
	Script     string        // path of our one script, or empty: no script may run
}

// Write sends the page.
func (p Page) Write(w http.ResponseWriter, status int) { panic("skeleton") }
