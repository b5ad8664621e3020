package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// apiTimeout is longer than the slowest call: a refresh by hand waits for the provider.
const apiTimeout = time.Minute

// apiAnswerLimit bounds what is read of an answer.
const apiAnswerLimit = 64 << 20

// api is the JSON API of a running bifrost.
type api struct {
	server string // without a trailing slash
	token  string // an operator's; empty in open mode
	client *http.Client
}

// apiFlags adds the flags of every command that speaks to the API. The function returns the API once they are parsed.
func apiFlags(fs *flag.FlagSet, std stdio) func() (*api, error) {
	connect := apiFlagsBeside(fs, std, "http://127.0.0.1:8081")
	return func() (*api, error) { return connect("") }
}

// apiFlagsBeside adds them for a command that also reads a configuration. The function takes the server that this names, for
// where nothing else is said.
func apiFlagsBeside(fs *flag.FlagSet, std stdio, byDefault string) func(configured string) (*api, error) {
	env := func(name string) string {
		value, _ := std.env(name)
		return value
	}
	server := fs.String("server", cmp.Or(env("BIFROST_SERVER"), byDefault), "`URL` of the auth listener")
	tokenFile := fs.String("token-file", "", "`file` with the operator token (default: $BIFROST_OPERATOR_TOKEN)")
	return func(configured string) (*api, error) {
		a := &api{server: strings.TrimRight(cmp.Or(*server, configured), "/"), token: env("BIFROST_OPERATOR_TOKEN")}
		if u, err := url.Parse(a.server); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, usagef("-server wants a URL such as http://127.0.0.1:8081")
		}
		if *tokenFile != "" {
			token, err := os.ReadFile(*tokenFile)
			if err != nil {
				return nil, err
			}
			a.token = strings.TrimSpace(string(token))
		}
		a.client = &http.Client{
			Timeout:       apiTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token goes nowhere else
		}
		return a, nil
	}
}

// onConnection reads the NAME and ORG of a command about one connection and calls do with the API and these.
func onConnection(fs *flag.FlagSet, args []string, std stdio, do func(a *api, integration, org string) error) error {
	connect := apiFlags(fs, std)
	names, err := parse(fs, args, std, "NAME", "ORG")
	if err != nil {
		return err
	}
	a, err := connect()
	if err != nil {
		return err
	}
	return do(a, names[0], names[1])
}

// connectionPath returns the path of one connection. The org "@global" stands for the global connection.
func connectionPath(integration, org string) string {
	return "/api/v1/integrations/" + url.PathEscape(integration) + "/connections/" + url.PathEscape(org)
}

// call sends body, if it is not nil, and reads the answer into answer, if that is not nil.
func (a *api) call(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(encoded)
	}
	resp, err := a.send(ctx, method, path, payload)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, apiAnswerLimit))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return apiError(resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return errors.New("the answer is not that of bifrost's API: does -server name the auth listener?")
	}
	return nil
}

// send makes one request and returns the answer whatever its status.
func (a *api) send(ctx context.Context, method, path string, payload io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.server+path, payload)
	if err != nil {
		return nil, err
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.client.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the address follows, without the path
	}
	if err != nil {
		return nil, fmt.Errorf("no answer from %s: %w: does bifrost serve run there, and is it the auth listener? See -server", a.server, err)
	}
	return resp, nil
}

// apiError turns problem+json (RFC 9457) into a sentence. An answer of something else is known by its status alone.
func apiError(status string, text []byte) error {
	var problem struct{ Title, Detail string }
	if json.Unmarshal(text, &problem) != nil || problem.Title == "" {
		return fmt.Errorf("the server answered %s: does -server name the auth listener of bifrost?", status)
	}
	if problem.Detail == "" {
		return errors.New(problem.Title)
	}
	return fmt.Errorf("%s: %s", problem.Title, problem.Detail)
}
