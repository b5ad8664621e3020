package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// reply is an answer of the proxy: users, or a problem.
type reply struct {
	status              int
	connection, failure string // X-Bifrost-Connection and X-Bifrost-Error
	Value               []user
	NextLink            string `json:"@odata.nextLink"`
	Detail              string
	Code                string
}

// call asks the proxy for something in the name of an org.
func (t *tour) call(ctx context.Context, org, path string) (reply, error) {
	status, header, body, err := get(ctx, http.DefaultClient, t.proxy+route+path, http.Header{"X-Org-Id": {org}})
	if err != nil {
		return reply{}, err
	}
	r := reply{status: status, connection: header.Get("X-Bifrost-Connection"), failure: header.Get("X-Bifrost-Error")}
	if err := json.Unmarshal(body, &r); err != nil {
		return reply{}, fmt.Errorf("an answer that is no JSON, status %d: %w", status, err)
	}
	return r, nil
}

// expectUsers calls for users and checks which connection answered, and whose directory.
func (t *tour) expectUsers(ctx context.Context, org, connection, directory string) (reply, error) {
	t.say("$ curl -H 'X-Org-ID: %s' %s%s/v1.0/users", org, t.proxy, route)
	r, err := t.call(ctx, org, "/v1.0/users")
	if err != nil {
		return reply{}, err
	}
	if r.status != http.StatusOK || r.connection != connection || len(r.Value) == 0 {
		return reply{}, fmt.Errorf("status %d, code %q, connection %q and %d users, instead of users of the connection %q",
			r.status, r.failure, r.connection, len(r.Value), connection)
	}
	names := make([]string, 0, len(r.Value))
	for _, u := range r.Value {
		if !strings.HasSuffix(u.UserPrincipalName, "@"+directory+".example") {
			return reply{}, fmt.Errorf("%s is not a user of %s", u.UserPrincipalName, directory)
		}
		names = append(names, u.UserPrincipalName)
	}
	t.say("200, X-Bifrost-Connection: %s: %s", r.connection, strings.Join(names, ", "))
	return r, nil
}

// expectProblem calls for users and checks that the proxy refuses with 424 and this code.
func (t *tour) expectProblem(ctx context.Context, org, code string) error {
	t.say("$ curl -H 'X-Org-ID: %s' %s%s/v1.0/users", org, t.proxy, route)
	r, err := t.call(ctx, org, "/v1.0/users")
	if err != nil {
		return err
	}
	if r.status != http.StatusFailedDependency || r.failure != code || r.Code != code {
		return fmt.Errorf("status %d, X-Bifrost-Error %q, code %q, instead of 424 %s", r.status, r.failure, r.Code, code)
	}
	t.say("424, X-Bifrost-Error: %s: %s", r.failure, r.Detail)
	return nil
}

// expectStatus asks the JSON API for a connection and checks its status and its last error; lastError empty: none.
func (t *tour) expectStatus(ctx context.Context, org, status, lastError string) error {
	var connection struct {
		Status    string
		ExpiresAt time.Time                    `json:"expires_at"`
		LastError *struct{ Code, Text string } `json:"last_error"`
	}
	path := "/api/v1/integrations/" + integration + "/connections/" + org
	t.say("$ curl %s%s", t.auth, path)
	code, _, body, err := get(ctx, http.DefaultClient, t.auth+path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &connection); err != nil {
		return fmt.Errorf("the API answered %d: %w", code, err)
	}
	told := ""
	if connection.LastError != nil {
		told = connection.LastError.Code
	}
	if connection.Status != status || told != lastError {
		return fmt.Errorf("status %q with last error %q, instead of %q with %q", connection.Status, told, status, lastError)
	}
	t.say("status: %s", connection.Status)
	if connection.LastError != nil {
		t.say("last error: %s, %s", told, connection.LastError.Text)
	}
	return nil
}

// connect presses Connect on the Integrations screen, signs in at the provider as user, and accepts.
func (t *tour) connect(ctx context.Context, org, user string) error {
	screen, err := t.browser.open(ctx, t.auth+"/integrations")
	if err != nil {
		return err
	}
	button, err := screen.find("Connect button for "+org, func(f form) bool {
		return strings.HasSuffix(f.action, "/connect") && (f.fields.Get("org") == org || f.buttons.Get("org") == org)
	})
	if err != nil {
		return err
	}
	t.say("Integrations screen: Connect, beside %s", org)
	ticket, err := t.browser.submit(ctx, screen, button, url.Values{"org": {org}})
	if err != nil {
		return err
	}
	proceed, err := ticket.find("button that leads to the provider", func(f form) bool { return true })
	if err != nil {
		return err
	}
	signIn, err := t.browser.submit(ctx, ticket, proceed, nil)
	if err != nil {
		return err
	}
	who, err := signIn.find("sign-in form", func(f form) bool { return f.fields.Has("user") })
	if err != nil {
		return err
	}
	permissions, err := t.browser.submit(ctx, signIn, who, url.Values{"user": {user}})
	if err != nil {
		return err
	}
	accept, err := permissions.find("Accept button", func(f form) bool { return f.buttons.Has("decision") })
	if err != nil {
		return err
	}
	t.say("%s: sign in as %s, accept", host(t.provider.BaseURL), user)
	result, err := t.browser.submit(ctx, permissions, accept, url.Values{"decision": {"allow"}})
	if err != nil {
		return err
	}
	if result.status != http.StatusOK || host(t.auth) != result.url.Host {
		return fmt.Errorf("the consent ended at %s%s with status %d", result.url.Host, result.url.Path, result.status)
	}
	return t.expectStatus(ctx, org, "active", "")
}
