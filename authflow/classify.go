package authflow

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// asking is what classify must know of the request.
type asking struct {
	once      bool          // the same POST must not be made again: a code, or a refresh token that is not reusable
	renewable bool          // a token that is valid for less than the provider says costs a refresh, not the connection
	anyType   bool          // token types other than bearer are accepted
	identity  *identity     // what an ID token must agree with; nil: it is not looked at
	within    time.Duration // deadline of the POST
}

// verdict is what a refusal with an OAuth error code means, and how to tell people.
type verdict struct {
	class   class
	meaning string
}

// verdictOn returns the verdict of a listed error code. The list is closed: every other code is shown as "other". Only the
// three that say of this very grant that it is refused kill it; whatever else a provider says may pass, or is ours to repair.
func verdictOn(code string) (verdict, bool) {
	v, listed := map[string]verdict{
		"invalid_grant":        {dead, "the grant has expired or was revoked"},
		"interaction_required": {dead, "the provider wants the user to sign in again"},
		"consent_required":     {dead, "the provider wants the user to consent again"},

		"invalid_client":      {rejectedClient, "the provider does not accept our client id or secret"},
		"unauthorized_client": {rejectedClient, "the provider does not allow our client to do this"},

		"invalid_request":            {transient, "the provider calls the request malformed"},
		"invalid_scope":              {transient, "the provider does not accept the scopes"},
		"invalid_target":             {transient, "the provider does not accept the resource or audience"},
		"unsupported_grant_type":     {transient, "the provider does not support this flow"},
		"unsupported_response_type":  {transient, "the provider does not support this flow"},
		"unsupported_token_type":     {transient, "the provider does not support this token type"},
		"access_denied":              {transient, "the provider denies access"},
		"login_required":             {transient, "the provider asks for a sign-in"},
		"account_selection_required": {transient, "the provider asks for an account"},
		"authorization_pending":      {transient, "the provider is still waiting for the user"},
		"expired_token":              {transient, "the provider says that a token has expired"},
		"invalid_token":              {transient, "the provider does not accept a token"},
		"insufficient_scope":         {transient, "the provider wants more scopes"},
		"slow_down":                  {transient, "the provider wants fewer requests"},
		"temporarily_unavailable":    {transient, "the provider is temporarily unavailable"},
		"server_error":               {transient, "the provider has met an error of its own"},
	}[code]
	return v, listed
}

// overloadPause is how long to leave a provider alone that says invalid_grant and means overload.
const overloadPause = 5 * time.Minute

// meansOverload reports whether Microsoft's error numbers tell of overload or throttling, which come with an invalid_grant
// that does not mean it. Numbers may soften a verdict and never harden one: should they change, it costs a delay and no
// connection.
func meansOverload(m members) bool {
	return m.problem == "invalid_grant" && slices.ContainsFunc(m.numbers, func(n string) bool {
		return slices.Contains([]string{"50196", "90033", "90006", "50033", "50087"}, n)
	})
}

// classify reads an answer. This is the whole table:
//
//	2xx with a usable access token                       granted
//	2xx without one, garbled, or with an error as well   ambiguous
//	2xx or 4xx with a listed error code                  the code's verdict
//	2xx with server_error, or with an unlisted code      ambiguous
//	3xx, other 4xx (429 whatever it says)                transient
//	408, 425, 5xx (whatever they say)                    transient; ambiguous if the POST must not be made again
//
// Retry-After is kept whatever the class.
func classify(a *tokenAnswer, how asking) reply {
	r := reply{code: "other", status: a.status, received: a.ended.Round(0), retryAfter: retryAfter(a.header.Get("Retry-After"), a.ended)}
	m, err := normalise(a.body, a.complete)
	readable := err == nil
	if _, listed := verdictOn(m.problem); listed {
		r.code = m.problem
	}
	switch {
	case a.status/100 == 3:
		return r.fail(transient, "a redirect, which is not followed: token_url may be wrong")
	case a.status == http.StatusTooManyRequests:
		return r.fail(transient, "the provider wants fewer requests")
	case a.status == http.StatusRequestTimeout, a.status == http.StatusTooEarly, a.status/100 == 5:
		if how.once {
			return r.fail(ambiguous, "the provider is unavailable, and may have spent the token")
		}
		return r.fail(transient, "the provider is unavailable")
	case a.status/100 == 4 && (!readable || m.problem == ""):
		return r.fail(transient, "a refusal that is no OAuth error")
	case a.status/100 == 4:
		return refusedReply(r, m, transient)
	case a.status/100 != 2 || !readable:
		return r.fail(ambiguous, "an answer that cannot be read")
	case m.problem != "" && m.access == "":
		return refusedReply(r, m, ambiguous)
	case m.problem != "":
		return r.fail(ambiguous, "a token and an error at once")
	case m.access == "":
		return r.fail(ambiguous, "an answer without an access token")
	}
	return grantedReply(r, a, m, how)
}

// refusedReply applies the verdict on the answer's error code; unlisted codes are of class otherwise.
func refusedReply(r reply, m members, otherwise class) reply {
	v, listed := verdictOn(m.problem)
	switch {
	case !listed, m.problem == "server_error":
		return r.fail(otherwise, cmp.Or(v.meaning, "an error that is not listed"))
	case meansOverload(m):
		r.retryAfter = max(r.retryAfter, overloadPause)
		return r.fail(transient, "the provider is overloaded")
	}
	return r.fail(v.class, v.meaning)
}

// grantedReply makes the reply of a usable access token. A type that is not understood must not be used (RFC 6749 section 7.1): the
// token was issued and the old one may be spent, so that the outcome is as unknown as without an answer.
func grantedReply(r reply, a *tokenAnswer, m members, how asking) reply {
	if !m.bearer() && !how.anyType {
		return r.fail(ambiguous, "a token of a type other than bearer, and inject does not say how to send it")
	}
	r.class, r.code = granted, ""
	r.token = tokenstore.Token{Access: m.access, Refresh: m.refresh, Type: m.tokenType}
	if m.bearer() {
		r.token.Type = "Bearer"
	}
	if life, ok := lifetimeOf(m.expiresIn, how.renewable || m.refresh != ""); ok {
		// The provider counted from some moment of the round trip: half of it is the best guess. Expiries are compared by
		// wall clock, also by other replicas.
		r.token.Expiry = a.ended.Add(life - a.ended.Sub(a.began)/2).Round(0)
	}
	r.scopes = m.scopes
	r.account = m.account
	if how.identity != nil {
		r.misidentified = how.identity.faultOf(m.id, a.ended)
	}
	return r
}

// noAnswer classifies a POST that no answer came to.
func noAnswer(p *onePost) reply {
	r := reply{class: transient, code: "other", text: "token endpoint: " + cmp.Or(p.fault, "the request could not be made"), received: time.Now().Round(0)}
	if p.sent {
		r.class = ambiguous
	}
	return r
}

func (r reply) fail(c class, meaning string) reply {
	r.class = c
	r.text = fmt.Sprintf("token endpoint: HTTP %d: %s", r.status, meaning)
	return r
}
