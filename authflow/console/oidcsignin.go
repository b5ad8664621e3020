package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// startSSO answers the sign-in form's button for the provider.
func (c *console) startSSO(w http.ResponseWriter, r *http.Request) {
	if c.oidc == nil {
		c.notFound(w, r)
		return
	}
	if !c.starts.allows() {
		w.Header().Set("Retry-After", "1")
		c.showSignIn(w, r, http.StatusTooManyRequests, "Too many people are signing in. Please wait a moment and try again.")
		return
	}
	p, err := c.oidc.provider(r.Context())
	if err != nil {
		w.Header().Set("Retry-After", "5")
		c.showSignIn(w, r, http.StatusServiceUnavailable, "") // which says it
		return
	}
	location, err := c.begin(w, r, p, r.PostFormValue("again") != "")
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	authflow.SeeOther(w, location)
}

// finishSSO answers the provider's callback. Its page leads nowhere but to the screen, whatever the query says.
func (c *console) finishSSO(w http.ResponseWriter, r *http.Request) {
	if c.oidc == nil {
		c.notFound(w, r)
		return
	}
	answer, ok := readReply(r.URL.RawQuery)
	if !ok {
		c.showMessage(w, http.StatusBadRequest, c.tryAgain("This answer cannot be used", "What the provider sent back is not a complete answer to a sign-in."))
		return
	}
	going, err := c.resume(r, answer.state)
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	if going == nil {
		c.showMessage(w, http.StatusBadRequest, c.tryAgain("This sign-in has ended",
			"It was not begun in this browser, was completed already, or took longer than ten minutes."))
		return
	}
	http.SetCookie(w, c.flowCookieFor(answer.state, "", -1))
	who, page, err := c.identify(r.Context(), going, answer)
	if err != nil {
		c.logAction(r.Context(), "sign_in_failed", visit{operator: anonymous}, tokenstore.Slot{}, err)
		failureOf(err).retryHeader(w)
		c.showMessage(w, failureOf(err).status, page)
		return
	}
	if _, ok := c.oidc.rightsOf(who); !ok {
		c.refuse(w, r, who)
		return
	}
	claims, err := json.Marshal(who)
	if err != nil {
		c.showFailure(w, failureOf(err))
		return
	}
	c.openSession(w, r, c.name(who), viewIn(going.View), func(id string) session {
		return session{Claims: claims, Proof: proof(id, c.oidc.identity())}
	})
}

// identify returns who has signed in, or why nobody has, for the log and for the page.
func (c *console) identify(ctx context.Context, going *flow, answer reply) (person, message, error) {
	p, err := c.oidc.provider(ctx)
	switch {
	case err != nil:
		return nil, c.tryAgain("The sign-in service is unreachable", "It did not answer. Nobody was signed in."),
			&failure{status: http.StatusServiceUnavailable, code: "idp_unavailable", cause: err}
	case answer.iss != "" && answer.iss != c.oidc.Issuer, answer.iss == "" && p.sendsIssuer && answer.err == "":
		return nil, c.tryAgain("This answer comes from somebody else", "It does not name the provider that was asked. Nobody was signed in."),
			failedSignIn(http.StatusBadRequest, errOtherIssuer)
	case answer.err == "access_denied":
		return nil, c.tryAgain("You were not signed in", "The provider says that the sign-in was denied."),
			failedSignIn(http.StatusForbidden, errors.New("the provider answered access_denied"))
	case answer.err != "":
		return nil, c.tryAgain("You were not signed in", "The provider answered with an error. If it does so again, tell "+c.oidc.Contact+"."),
			failedSignIn(http.StatusForbidden, errors.New("the provider answered "+known(answer.err)))
	}
	who, err := c.oidc.redeem(ctx, p, going, answer.code)
	if err != nil {
		return nil, c.tryAgain("The sign-in could not be completed", "The provider's answer could not be verified. If this happens again, tell "+c.oidc.Contact+": the log says more."),
			failedSignIn(http.StatusBadGateway, err)
	}
	return who, message{}, nil
}

func failedSignIn(status int, cause error) *failure {
	return &failure{status: status, code: "operator_unauthenticated", cause: cause}
}

// known returns a standard code of an authorization error (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6).
func known(code string) string {
	switch code {
	case "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error", "temporarily_unavailable",
		"interaction_required", "login_required", "account_selection_required", "consent_required":
		return code
	}
	return "an error of its own"
}

// refuse tells somebody whom no rule lets in who he is, and whom to ask.
func (c *console) refuse(w http.ResponseWriter, r *http.Request, who person) {
	name := c.name(who)
	c.logAction(r.Context(), "sign_in_failed", visit{operator: name}, tokenstore.Slot{}, &failure{
		status: http.StatusForbidden, code: "operator_forbidden",
		cause: fmt.Errorf("no rule of auth.oidc lets this person in; address %q, verified: %t", who.address(), who.verified()),
	})
	unverified := ""
	if c.oidc.email(who) == "" {
		unverified = who.address()
	}
	body := render("refused", struct {
		Name, Unverified, Provider, Contact, Action, Form, Home string
	}{name, unverified, c.oidc.host(), c.oidc.Contact, c.path("/integrations/sign-in/sso"), c.giveForm(w, r), c.path("/integrations")})
	page := authflow.Page{Title: "No access", Body: body, Home: c.path("/integrations"), FormAction: c.ssoSources(r.Context())}
	page.Write(w, http.StatusForbidden)
}

// tryAgain is a message that leads back to the sign-in form.
func (c *console) tryAgain(title, text string) message {
	return message{Title: title, Text: text, Home: c.path("/integrations"), Link: "Back to sign-in"}
}

// host names the provider for people.
func (o *openID) host() string {
	u, err := url.Parse(o.Issuer)
	if err != nil {
		return o.Issuer
	}
	return u.Host
}

// ssoSources are where a form that begins a sign-in leads to: browsers apply form-action to redirects too, and a provider may
// pass the visitor on to another one that it trusts. They are nil where the provider is unreachable.
func (c *console) ssoSources(ctx context.Context) []string {
	if c.oidc == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, providerPage)
	defer cancel()
	p, err := c.oidc.provider(ctx)
	if err != nil {
		return nil
	}
	return []string{c.origin(), p.origin(), "https:"}
}
