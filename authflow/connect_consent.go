package authflow

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	consentLife = 10 * time.Minute // from the click on Connect to the callback
	maxConsents = 5                // under way in one browser: each costs it a cookie
	maxPerLink  = 20               // under way by one link: its holder must not fill the store
	cookiePart  = "bifrost-consent-"
)

// consent is one consent under way, kept on the Shelf under its state from the click to the callback. It names everything
// that the callback must agree with (RFC 9700 section 4.4) and holds secrets: never print or log one.
type consent struct {
	Slot        tokenstore.Slot
	By          string
	Ticket      string
	Own         bool   // see ticket
	Browser     []byte // hash of the cookie of the browser that began
	Verifier    string // RFC 7636; empty: PKCE is off
	Nonce       string // to be repeated in the ID token (OpenID Connect Core section 3.1.2.1); empty: none is asked for
	RedirectURI string // as sent, to be repeated byte by byte (RFC 6749 section 4.1.3)
	Client      string // fingerprint of the client and of where its code may be sent
}

func consentID(state string) string { return "consent:" + state }

// begin keeps the consent for its callback and marks the connection as pending, unless its link has led to too many that have
// not come back.
func (c *consents) begin(ctx context.Context, state string, going consent) *problem {
	running := "consents:" + linkOf(going.Ticket)
	full := false
	err := c.alone(ctx, "consents by "+linkOf(going.Ticket), going.Slot, func(ctx context.Context) error {
		states, err := peek[[]string](ctx, c.store, running)
		if err != nil && !errors.Is(err, tokenstore.ErrNotFound) {
			return err
		}
		if states, err = c.unfinished(ctx, states); err != nil {
			return err
		}
		if full = len(states) >= maxPerLink; full {
			return nil
		}
		if err := shelve(ctx, c.store, running, append(states, state), consentLife); err != nil {
			return err
		}
		return shelve(ctx, c.store, consentID(state), going, consentLife)
	})
	switch {
	case full:
		return &tooMany
	case err != nil:
		return &storeDown
	}
	since := time.Now().UTC().Format(time.RFC3339)
	if c.store.Put(ctx, pendingID(going.Slot), []byte(since), consentLife) != nil {
		return &storeDown
	}
	return nil
}

// unfinished returns those of the states whose consents are under way.
func (c *consents) unfinished(ctx context.Context, states []string) ([]string, error) {
	if len(states) == 0 {
		return nil, nil
	}
	ids := make([]string, len(states))
	for i, state := range states {
		ids[i] = consentID(state)
	}
	found, err := c.store.Peek(ctx, ids...)
	if err != nil {
		return nil, err
	}
	var going []string
	for i, state := range states {
		if found[i] != nil {
			going = append(going, state)
		}
	}
	return going, nil
}

// hashOf is what is kept of a secret that only has to be recognised.
func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// authorizationURL returns where the browser consents: a query that the configured URL has is kept, then come our parameters,
// then the configured ones, and none of them twice (RFC 6749 section 3.1).
func (going consent) authorizationURL(in *Integration, ep Endpoints, state string) (string, error) {
	target, err := url.Parse(ep.AuthorizationURL)
	if err != nil || target.Host == "" {
		return "", fmt.Errorf("authorization_url is not a URL") // without the cause, which would quote it
	}
	var options []oauth2.AuthCodeOption
	if going.Verifier != "" {
		options = append(options, oauth2.S256ChallengeOption(going.Verifier))
	}
	if in.Audience != "" {
		options = append(options, oauth2.SetAuthURLParam("audience", in.Audience))
	}
	if going.Nonce != "" {
		options = append(options, oauth2.SetAuthURLParam("nonce", going.Nonce))
	}
	client := oauth2.Config{ClientID: in.ClientID, RedirectURL: going.RedirectURI, Scopes: in.Scopes}
	ours, err := url.ParseQuery(strings.TrimPrefix(client.AuthCodeURL(state, options...), "?"))
	if err != nil {
		return "", fmt.Errorf("the authorization request cannot be written")
	}
	configured := url.Values{}
	for name, value := range ep.AuthorizationParams {
		if !ours.Has(name) {
			configured.Set(name, value)
		}
	}
	query := slices.DeleteFunc(strings.Split(target.RawQuery, "&"), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		return pair == "" || err != nil || ours.Has(name) || configured.Has(name)
	})
	query = append(query, ours.Encode())
	if len(configured) > 0 {
		query = append(query, configured.Encode())
	}
	target.RawQuery = strings.Join(query, "&")
	return target.String(), nil
}

// secure tells whether browsers reach us by https, which is the public URL's to say: a front end may end TLS.
func (c *consents) secure() bool { return strings.HasPrefix(c.cfg.PublicURL, "https://") }

// cookiePrefix begins the names of our cookies. Browsers take a __Host- cookie from this very host alone, so that no sibling
// domain can plant one; they refuse it over plain http, which is for loopback.
func (c *consents) cookiePrefix() string {
	if c.secure() {
		return "__Host-" + cookiePart
	}
	return cookiePart
}

// cookie binds a consent to the browser that began it. Its name tells consents in two tabs apart. Browsers remove a cookie
// only if told with the attributes that it was set with, so a negative maxAge is the one difference.
func (c *consents) cookie(state, value string, maxAge int) *http.Cookie {
	return c.namedCookie(c.cookiePrefix()+hex.EncodeToString(hashOf(state)[:8]), value, maxAge)
}

func (c *consents) namedCookie(name, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, MaxAge: maxAge,
		Path: "/", HttpOnly: true, Secure: c.secure(), SameSite: http.SameSiteLaxMode,
	}
}

// makeRoom forgets the oldest consents of a browser that has begun too many; browsers send older cookies first.
func (c *consents) makeRoom(w http.ResponseWriter, r *http.Request) {
	begun := slices.DeleteFunc(r.Cookies(), func(cookie *http.Cookie) bool {
		return !strings.HasPrefix(cookie.Name, c.cookiePrefix())
	})
	for len(begun) >= maxConsents {
		http.SetCookie(w, c.namedCookie(begun[0].Name, "", -1))
		begun = begun[1:]
	}
}

// begunBy tells whether the request comes from the browser that began the consent.
func (going consent) begunBy(cookies []*http.Cookie) bool {
	return slices.ContainsFunc(cookies, func(cookie *http.Cookie) bool {
		return subtle.ConstantTimeCompare(hashOf(cookie.Value), going.Browser) == 1
	})
}
