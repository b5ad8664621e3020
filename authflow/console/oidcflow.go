package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	flowLife   = 10 * time.Minute // from the button to the callback
	flowCookie = "bifrost-sign-in-"
	maxFlows   = 5 // under way in one browser: each costs it a cookie
)

// flow is a sign-in under way, kept on the shelf under its state, so that any replica serves the callback. It holds secrets:
// never print or log one.
type flow struct {
	Browser     []byte `json:"browser"` // hash of the cookie of the browser that began
	Verifier    string `json:"verifier"`
	Nonce       string `json:"nonce"`
	View        string `json:"view"` // what was looked at, and is shown in the end
	RedirectURI string `json:"redirect_uri"`
	Client      string `json:"client"` // what it was begun with
}

func flowID(state string) string { return "operator sign-in " + state }

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// identity is what sessions and flows are bound to: with another client they end.
func (o *openID) identity() string { return o.Issuer + "\n" + o.ClientID }

// flowCookieFor binds a flow to its browser. Its name tells flows in two tabs apart.
func (c *console) flowCookieFor(state, value string, life time.Duration) *http.Cookie {
	return c.cookie(flowCookie+hex.EncodeToString(hashOf(state)[:8]), value, life)
}

// begin keeps a new flow, gives the browser its cookie, and returns where the browser signs in. With again the provider asks who
// comes, even if it knows.
func (c *console) begin(w http.ResponseWriter, r *http.Request, p *provider, again bool) (string, error) {
	state, browser := rand.Text()+rand.Text(), rand.Text()+rand.Text() // 256 bits and more
	going := flow{
		Browser: hashOf(browser), Verifier: oauth2.GenerateVerifier(), Nonce: rand.Text() + rand.Text(), View: viewOf(r).String(),
		RedirectURI: c.public.String() + "/integrations/sign-in/callback", Client: c.oidc.identity(),
	}
	value, err := json.Marshal(going)
	if err == nil {
		err = c.sessions.Put(r.Context(), flowID(state), value, flowLife)
	}
	if err != nil {
		return "", fmt.Errorf("console: sign-in: %w", err)
	}
	c.makeRoom(w, r)
	http.SetCookie(w, c.flowCookieFor(state, browser, flowLife))
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(going.Verifier), oidc.Nonce(going.Nonce)}
	if again {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
	}
	return c.oidc.config(p, going.RedirectURI).AuthCodeURL(state, options...), nil
}

// makeRoom forgets the oldest flows of a browser that has begun too many; browsers send older cookies first.
func (c *console) makeRoom(w http.ResponseWriter, r *http.Request) {
	begun := slices.DeleteFunc(r.Cookies(), func(cookie *http.Cookie) bool {
		return !strings.HasPrefix(cookie.Name, c.cookieName(flowCookie))
	})
	for len(begun) >= maxFlows {
		stale := c.cookie("", "", -1)
		stale.Name = begun[0].Name
		http.SetCookie(w, stale)
		begun = begun[1:]
	}
}

// resume returns the flow of a callback and spends it: of several callbacks one gets it. Without the cookie of the browser that
// began nothing is spent, so that a link scanner that comes first does no harm. Nil: there is none.
func (c *console) resume(r *http.Request, state string) (*flow, error) {
	cookie, err := r.Cookie(c.flowCookieFor(state, "", 0).Name)
	if err != nil {
		return nil, nil
	}
	values, err := c.sessions.Peek(r.Context(), flowID(state))
	if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
		return nil, fmt.Errorf("console: sign-in: %w", err)
	}
	var going flow
	if len(values) != 1 || values[0] == nil || json.Unmarshal(values[0], &going) != nil ||
		subtle.ConstantTimeCompare(going.Browser, hashOf(cookie.Value)) != 1 || going.Client != c.oidc.identity() {
		return nil, nil
	}
	_, err = c.sessions.Take(r.Context(), flowID(state))
	if errors.Is(err, tokenstore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("console: sign-in: %w", err)
	}
	return &going, nil
}

// Bounds on what a callback may carry.
const (
	maxQuery     = 32 << 10
	maxParameter = 8 << 10
)

// reply is a provider's answer to an authorization request: a code or an error (RFC 6749 section 4.1.2, RFC 9207).
type reply struct{ state, code, err, iss string }

// readReply reads a callback's query; false: it is no answer. Parameters that are not known are passed over.
func readReply(query string) (reply, bool) {
	values, err := url.ParseQuery(query)
	if err != nil || len(query) > maxQuery {
		return reply{}, false
	}
	for _, name := range []string{"state", "code", "error", "iss"} {
		v := values.Get(name)
		if len(values[name]) > 1 || len(v) > maxParameter || v != "" && !visible(v) {
			return reply{}, false
		}
	}
	a := reply{state: values.Get("state"), code: values.Get("code"), err: values.Get("error"), iss: values.Get("iss")}
	return a, a.state != "" && (a.code == "") != (a.err == "")
}

// Why a sign-in fails after the browser has come back. What the provider wrote is in none of them.
var (
	errOtherIssuer = errors.New("the answer names another issuer, or none where this provider always does")
	errNoIDToken   = errors.New("the token endpoint gave no ID token")
	errIDToken     = errors.New("the signature, issuer, audience or time of the ID token is wrong, or the provider's keys cannot be had")
	errExpired     = errors.New("the ID token has expired: compare the clocks")
	errNonce       = errors.New("the ID token is of another sign-in")
	errParty       = errors.New("the ID token is for several clients and was issued to another")
	errSubject     = errors.New("the provider's id of the user is missing or malformed")
	errUserInfo    = errors.New("the userinfo endpoint did not answer usefully, or of another user")
)

// redeem exchanges a flow's code, once, and returns who has signed in.
func (o *openID) redeem(ctx context.Context, p *provider, going *flow, code string) (person, error) {
	ctx, cancel := context.WithTimeout(o.with(context.WithoutCancel(ctx)), exchangeTimeout)
	defer cancel()
	token, err := o.config(p, going.RedirectURI).Exchange(ctx, code, oauth2.VerifierOption(going.Verifier))
	if err != nil {
		return nil, exchangeError(err)
	}
	raw, _ := token.Extra("id_token").(string) // absent: errNoIDToken
	if raw == "" {
		return nil, errNoIDToken
	}
	who, err := o.verify(ctx, p, going, raw)
	if err != nil || o.complete(who) || p.UserInfoEndpoint() == "" {
		return who, err
	}
	info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil || info.Subject != who.text("sub") { // OpenID Connect Core section 5.3.2
		return nil, errUserInfo
	}
	var claims json.RawMessage
	if err := info.Claims(&claims); err != nil {
		return nil, errUserInfo
	}
	more, err := parsePerson(claims)
	if err != nil {
		return nil, errUserInfo
	}
	who.add(more)
	return who, nil
}

// verify checks an ID token (OpenID Connect Core section 3.1.3.7) and returns its claims. Only asymmetric algorithms are accepted,
// which is the library's doing.
func (o *openID) verify(ctx context.Context, p *provider, going *flow, raw string) (person, error) {
	token, err := p.Verifier(&oidc.Config{ClientID: o.ClientID}).Verify(ctx, raw)
	if _, ok := errors.AsType[*oidc.TokenExpiredError](err); ok {
		return nil, errExpired
	}
	if err != nil {
		return nil, errIDToken
	}
	var claims json.RawMessage
	if err := token.Claims(&claims); err != nil {
		return nil, errIDToken
	}
	who, err := parsePerson(claims)
	if err != nil {
		return nil, errIDToken
	}
	party, hasParty := who["azp"]
	switch {
	case subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(going.Nonce)) != 1:
		return nil, errNonce
	case hasParty && party != o.ClientID, !hasParty && len(token.Audience) > 1:
		return nil, errParty
	case !visible(token.Subject) || len(token.Subject) > 255:
		return nil, errSubject
	}
	return who, nil
}

// exchangeErrors are the codes that a token endpoint may answer (RFC 6749 section 5.2).
var exchangeErrors = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}

// exchangeError says how an exchange failed without the body, which the library quotes.
func exchangeError(err error) error {
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return errors.New("the token endpoint did not answer usefully")
	}
	code := "no standard error"
	if slices.Contains(exchangeErrors, e.ErrorCode) {
		code = e.ErrorCode
	}
	return fmt.Errorf("the token endpoint answered HTTP %d, %s", e.Response.StatusCode, code)
}
