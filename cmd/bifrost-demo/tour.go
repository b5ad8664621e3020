package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// patience bounds each wait of the tour, beyond the lifetime of a token.
const patience = 15 * time.Second

// tour walks through the story of one integration. Every step checks what it tells.
type tour struct {
	*demo
	browser *browser
	out     io.Writer
}

// walk carries out the tour, and fails at the first step that does not come true.
func walk(ctx context.Context, d *demo, out io.Writer) error {
	t := &tour{d, newBrowser(), out}
	for i, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Nobody has connected yet: a request fails, and says why", t.notConnected},
		{"An operator connects acme, whose administrator consents at the provider", t.connectAcme},
		{"A workflow calls the API through the proxy, with nothing but the org's name", t.callAcme},
		{"The answer links its next page at the API itself; its path and query work through the proxy", t.nextPage},
		{fmt.Sprintf("Access tokens live %v: later calls use a refreshed one", t.life), t.refreshed},
		{"An operator connects Global; initech, which never connected, falls back to it", t.fallBack},
		{"acme's administrator withdraws the consent: acme fails, and never falls back", t.broken},
		{"An operator reconnects acme, and it works again", t.reconnect},
	} {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w\n%s", i+1, step.title, err, d.bifrost.lastWords())
		}
	}
	fmt.Fprintf(out, "\nEvery step was checked. Run `go run ./cmd/bifrost-demo` to click through it yourself.\n")
	return nil
}

func (t *tour) say(format string, args ...any) { fmt.Fprintf(t.out, "   "+format+"\n", args...) }

func (t *tour) notConnected(ctx context.Context) error {
	return t.expectProblem(ctx, "acme", "not_connected")
}

func (t *tour) connectAcme(ctx context.Context) error { return t.connect(ctx, "acme", "acme-admin") }

func (t *tour) callAcme(ctx context.Context) error {
	_, err := t.expectUsers(ctx, "acme", "org", "acme")
	return err
}

// nextPage follows the absolute link of an answer: its path and query, below the route.
func (t *tour) nextPage(ctx context.Context) error {
	first, err := t.expectUsers(ctx, "acme", "org", "acme")
	if err != nil {
		return err
	}
	link, err := url.Parse(first.NextLink)
	if err != nil || link.RawQuery == "" {
		return fmt.Errorf("the first page has no link to a next one: %q", first.NextLink)
	}
	t.say("@odata.nextLink: %s", first.NextLink)
	path := "/v1.0/users?" + link.RawQuery
	t.say("$ curl -H 'X-Org-ID: acme' '%s%s%s'", t.proxy, route, path)
	second, err := t.call(ctx, "acme", path)
	if err != nil {
		return err
	}
	if second.status != 200 || len(second.Value) == 0 || second.Value[0].ID == first.Value[0].ID {
		return fmt.Errorf("the next page was not the next page: status %d, %v", second.status, second.Value)
	}
	t.say("200, from %s on", second.Value[0].UserPrincipalName)
	return nil
}

// refreshed waits until the token that the provider saw last is past its life, and calls again.
func (t *tour) refreshed(ctx context.Context) error {
	old := t.lastToken()
	t.say("waiting until this token of generation %d has expired …", old.Generation)
	err := until(ctx, t.life+patience, func() (bool, error) {
		token, known := t.provider.Lookup(old.Value)
		return !known || !token.Alive, nil
	})
	if err != nil {
		return err
	}
	if _, err := t.expectUsers(ctx, "acme", "org", "acme"); err != nil {
		return err
	}
	fresh := t.lastToken()
	if fresh.Grant != old.Grant || fresh.Generation <= old.Generation {
		return fmt.Errorf("the token was not refreshed: generation %d after %d", fresh.Generation, old.Generation)
	}
	for token, posts := range t.provider.Refreshes() {
		if posts != 1 {
			return fmt.Errorf("a one-time refresh token (…%s) was sent %d times", token[len(token)-4:], posts)
		}
	}
	t.say("the provider saw a token of generation %d, and each refresh token exactly once", fresh.Generation)
	return nil
}

func (t *tour) fallBack(ctx context.Context) error {
	if err := t.connect(ctx, "@global", "platform-admin"); err != nil {
		return err
	}
	_, err := t.expectUsers(ctx, "initech", "global", "platform")
	return err
}

// broken withdraws the consent at the provider. The upstream's own 401 passes until the last access token has run out.
func (t *tour) broken(ctx context.Context) error {
	t.provider.RevokeUser("acme-admin")
	t.say("the provider has revoked acme-admin's grants")
	err := until(ctx, t.life+patience, func() (bool, error) {
		a, err := t.call(ctx, "acme", "/v1.0/users")
		if err == nil && a.status == 200 {
			err = fmt.Errorf("acme still gets users, of the connection %q", a.connection)
		}
		return a.failure == "needs_reconnect", err
	})
	if err != nil {
		return err
	}
	if err := t.expectProblem(ctx, "acme", "needs_reconnect"); err != nil {
		return err
	}
	return t.expectStatus(ctx, "acme", "needs_reconnect", "invalid_grant")
}

func (t *tour) reconnect(ctx context.Context) error {
	if err := t.connect(ctx, "acme", "acme-admin"); err != nil {
		return err
	}
	if _, err := t.expectUsers(ctx, "acme", "org", "acme"); err != nil {
		return err
	}
	return t.expectStatus(ctx, "acme", "active", "")
}

// lastToken returns the access token that the API saw last.
func (t *tour) lastToken() authflowtest.Token {
	seen := t.provider.Sightings()
	if len(seen) == 0 {
		return authflowtest.Token{}
	}
	return seen[len(seen)-1].Token
}

// until asks four times a second whether something has come true.
func until(ctx context.Context, limit time.Duration, come func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not come true within %v", limit))
	defer cancel()
	for {
		if ok, err := come(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
