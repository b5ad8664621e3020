package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const sessionLife = 8 * time.Hour

// The cookies, before cookieName.
const (
	sessionCookie = "bifrost-session"
	formCookie    = "bifrost-form"
)

// session is what the shelf keeps of a sign-in. Proof binds it to the operator's token, or to the client at the provider: when
// that changes, all sessions that it opened end.
type session struct {
	Operator string          `json:"operator,omitempty"`
	Claims   json.RawMessage `json:"claims,omitempty"` // instead of Operator: of who has signed in at the provider
	Proof    []byte          `json:"proof"`
}

// operator returns the operator with this token. Every token is compared, in constant time, whatever matches.
func (c *console) operator(token string) (found Operator, ok bool) {
	given := sha256.Sum256([]byte(token))
	for _, op := range c.operators {
		own := op.Token()
		want := sha256.Sum256([]byte(own))
		if subtle.ConstantTimeCompare(given[:], want[:]) == 1 && own != "" {
			found, ok = op, true
		}
	}
	return found, ok
}

// signedIn returns the visit of the request's session, with the rights that its operator has by now, and whether there is one.
// An error means that the shelf could not be read.
func (c *console) signedIn(r *http.Request) (visit, bool, error) {
	if c.open() {
		return c.visitBy(anonymous, Rights{}), true, nil
	}
	cookie, err := r.Cookie(c.cookieName(sessionCookie))
	if err != nil || cookie.Value == "" {
		return visit{}, false, nil
	}
	values, err := c.sessions.Peek(r.Context(), shelfID(cookie.Value))
	if errors.Is(err, tokenstore.ErrNotFound) {
		return visit{}, false, nil
	}
	if err != nil {
		return visit{}, false, fmt.Errorf("console: session: %w", err)
	}
	var s session
	if len(values) != 1 || values[0] == nil || json.Unmarshal(values[0], &s) != nil {
		return visit{}, false, nil
	}
	if s.Claims != nil {
		v, ok := c.visitByClaims(s, cookie.Value)
		return v, ok, nil
	}
	for _, op := range c.operators {
		if op.Name == s.Operator && hmac.Equal(s.Proof, proof(cookie.Value, op.Token())) {
			return c.visitBy(op.Name, op.Rights), true, nil
		}
	}
	return visit{}, false, nil
}

// visitByClaims returns the visit of somebody who has signed in at the provider, if the rules in force let him in.
func (c *console) visitByClaims(s session, id string) (visit, bool) {
	if c.oidc == nil || !hmac.Equal(s.Proof, proof(id, c.oidc.identity())) {
		return visit{}, false
	}
	who, err := parsePerson(s.Claims)
	if err != nil {
		return visit{}, false
	}
	rights, ok := c.oidc.rightsOf(who)
	if !ok {
		return visit{}, false
	}
	return c.visitBy(c.name(who), rights), true
}

// signIn answers the sign-in form for operators with a token.
func (c *console) signIn(w http.ResponseWriter, r *http.Request) {
	if c.open() {
		authflow.SeeOther(w, c.path("/integrations"))
		return
	}
	token := strings.TrimSpace(r.PostFormValue("token"))
	op, ok := c.operator(token)
	if !ok && !c.wrong.allows() {
		w.Header().Set("Retry-After", "1")
		c.showSignIn(w, r, http.StatusTooManyRequests, "Too many wrong tokens. Please wait a moment and try again.")
		return
	}
	if !ok {
		wrong := &failure{status: http.StatusUnauthorized, code: "operator_unauthenticated"}
		c.logAction(r.Context(), "sign_in_failed", visit{operator: anonymous}, tokenstore.Slot{}, wrong)
		c.showSignIn(w, r, http.StatusUnauthorized, "That is not a valid operator token.")
		return
	}
	c.openSession(w, r, op.Name, viewOf(r), func(id string) session {
		return session{Operator: op.Name, Proof: proof(id, token)}
	})
}

// openSession begins a session under a new id, never the one that the browser brought, and leads to what was asked for.
func (c *console) openSession(w http.ResponseWriter, r *http.Request, operator string, look view, of func(id string) session) {
	id := rand.Text()
	value, err := json.Marshal(of(id))
	if err == nil {
		err = c.sessions.Put(r.Context(), shelfID(id), value, sessionLife)
	}
	c.logAction(r.Context(), "sign_in", visit{operator: operator}, tokenstore.Slot{}, err)
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	http.SetCookie(w, c.cookie(sessionCookie, id, sessionLife))
	http.SetCookie(w, c.cookie(formCookie, "", -1))
	authflow.SeeOther(w, c.screenURL(look, nil))
}

// signOut ends the session on every replica.
func (c *console) signOut(w http.ResponseWriter, r *http.Request, v visit) {
	if cookie, err := r.Cookie(c.cookieName(sessionCookie)); err == nil && !c.open() {
		_, err := c.sessions.Take(r.Context(), shelfID(cookie.Value))
		if errors.Is(err, tokenstore.ErrNotFound) {
			err = nil // it has just expired
		}
		c.logAction(r.Context(), "sign_out", v, tokenstore.Slot{}, err)
		if err != nil {
			c.showFailure(w, failureOf(err))
			return
		}
	}
	http.SetCookie(w, c.cookie(sessionCookie, "", -1))
	authflow.SeeOther(w, c.path("/integrations"))
}

// proof binds a session to a token without making the stored value a way to guess the token.
func proof(id, token string) []byte {
	mac := hmac.New(sha256.New, []byte(id))
	mac.Write([]byte(token))
	return mac.Sum(nil)
}

// shelfID keeps our ids apart from those of states and tickets, which lie on the same shelf.
func shelfID(id string) string { return "operator session " + id }

// cookieName adds the prefix that makes browsers refuse the cookie from a sibling domain or from plain http; it needs https.
func (c *console) cookieName(name string) string {
	if c.public.Scheme == "https" {
		return "__Host-" + name
	}
	return name
}

// cookie returns a cookie of ours; life 0 lasts as long as the browser runs, less than 0 deletes. Every attribute is the same
// in each case, or browsers would not delete it. Lax: the operator may arrive by a link.
func (c *console) cookie(name, value string, life time.Duration) *http.Cookie {
	age := int(life / time.Second)
	if life < 0 {
		age = -1
	}
	return &http.Cookie{
		Name: c.cookieName(name), Value: value, Path: "/", MaxAge: age,
		Secure: c.public.Scheme == "https", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}
