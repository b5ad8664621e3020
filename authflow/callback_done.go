package authflow

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// connected is what the page after a consent tells, kept on the Shelf for as long as somebody may look at it. It holds no secret.
type connected struct {
	Slot      tokenstore.Slot
	Own       bool // by a Connect button: the page leads back to the Integrations screen, which others cannot use
	Waits     bool // by another account: an operator has to confirm it
	Scopes    []string
	Missing   []string
	Renewable bool
	Expiry    time.Time
}

func resultID(id string) string { return "result:" + id }

// shelveResult keeps what to show and returns where. The connection is made whether or not it can be kept.
func (c *consents) shelveResult(ctx context.Context, made connected) string {
	id := newSecret()
	_ = shelve(ctx, c.cfg.Store, resultID(id), made, consentLife) // the connection stands; without it the page says less
	return id
}

// done is where a successful callback leads: its URL holds neither code nor state, so that history, logs and a reload are
// harmless.
func (c *consents) done(w http.ResponseWriter, r *http.Request) {
	in, ok := c.Integration(r.PathValue("integration"))
	switch {
	case !ok:
		unknownIntegration.write(w)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		methodNotAllowed(w, "GET, HEAD")
		return
	}
	made, err := peek[connected](r.Context(), c.cfg.Store, resultID(r.URL.Query().Get("result")))
	if err != nil || made.Slot.Integration != in.Name {
		resultGone.write(w)
		return
	}
	title, body, home := "Connected", "done", ""
	if made.Waits {
		title, body = "Waiting for an operator", "awaiting"
	}
	if made.Own {
		home = c.cfg.PublicURL + "/integrations"
	}
	Page{
		Title: title,
		Home:  home,
		Body: render(body, map[string]any{
			"Integration": in,
			"Global":      made.Slot.Org == tokenstore.Global,
			"Result":      made,
			"Expiry":      atMinute(made.Expiry),
			"Home":        home,
		}),
	}.Write(w, http.StatusOK)
}

// atMinute is how pages write a time.
func atMinute(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// missingScopes returns the scopes that were asked for and not granted. Providers write a granted scope with or without its
// resource in front, and leave offline_access out of the list: the refresh token itself says that it was granted.
func missingScopes(requested []string, rec *tokenstore.Record) []string {
	var missing []string
	for _, scope := range requested {
		granted := slices.ContainsFunc(rec.Scopes, func(have string) bool {
			return have == scope || strings.HasSuffix(have, "/"+scope)
		})
		implied := scope == "offline_access" && rec.Token.Refresh != ""
		if !granted && !implied {
			missing = append(missing, scope)
		}
	}
	return missing
}
