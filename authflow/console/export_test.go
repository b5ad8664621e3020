package console

import (
	"net/http"
	"time"
)

// Patterns returns the patterns of every path that a handler made by New answers.
func Patterns(h http.Handler) []string { return h.(*surface).patterns }

// AddCareless gives a handler made by New two paths below every integration, whose handlers look at nothing.
func AddCareless(h http.Handler) {
	s := h.(*surface)
	page := func(w http.ResponseWriter, _ *http.Request, _ visit) { w.WriteHeader(http.StatusTeapot) }
	call := func(*http.Request, visit) (any, error) { return "done", nil }
	s.Handle("/integrations/{name}/careless", s.console.page(visits{http.MethodGet: page, http.MethodPost: page}))
	s.Handle("/api/v1/integrations/{name}/careless", s.console.api(calls{http.MethodGet: call, http.MethodPost: call}))
}

// ProviderAgain makes a handler made by New ask the provider anew, as it does when time has passed.
func ProviderAgain(h http.Handler) {
	o := h.(*surface).console.oidc
	o.mu.Lock()
	defer o.mu.Unlock()
	o.again = time.Time{}
}
