package authflow

import (
	"net/http"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// problem is a page that says why a step of connecting was refused or failed. It repeats nothing that a browser or a provider
// sent.
type problem struct {
	Status int
	Title  string
	Text   string
	Advice string // what to do about it; may be empty
	Code   string // a standard error code; may be empty
}

func (p problem) write(w http.ResponseWriter) {
	switch p.Status {
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
	case http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "60") // one may end; all have in ten minutes
	}
	Page{Title: p.Title, Body: render("problem", p)}.Write(w, p.Status)
}

func methodNotAllowed(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	problem{
		Status: http.StatusMethodNotAllowed, Title: "This cannot be done here",
		Text: "The page was asked for in a way that it does not answer.",
	}.write(w)
}

// openAgain is the advice wherever the ticket is still good.
const openAgain = "Open your connect link once more and start again from there."

var (
	unknownPage = problem{
		Status: http.StatusNotFound, Title: "There is no such page",
		Text: "Please check the address.",
	}
	unknownIntegration = problem{
		Status: http.StatusNotFound, Title: "There is no such integration",
		Text: "The integration that this address names is not configured here.",
	}
	badForm = problem{
		Status: http.StatusBadRequest, Title: "The form could not be read",
		Text: "Nothing was changed.", Advice: openAgain,
	}
	crossSite = problem{
		Status: http.StatusForbidden, Title: "Another site sent this form",
		Text: "Connecting can only be started from our own page. Nothing was changed.", Advice: openAgain,
	}
	badTicket = problem{
		Status: http.StatusForbidden, Title: "This connect link cannot be used",
		Text:   "It has expired, has been used or revoked, or was not copied completely.",
		Advice: "Ask the person who sent it for a new one.",
	}
	spentTicket = problem{
		Status: http.StatusForbidden, Title: "This connect link has been used",
		Text:   "While you were consenting, somebody else used the same link. Your consent was not used.",
		Advice: "Ask for a new link if the connection still has to be made.",
	}
	revokedTicket = problem{
		Status: http.StatusForbidden, Title: "This connect link was revoked",
		Text:   "It was withdrawn while you were consenting. Your consent was not used.",
		Advice: "Ask the person who sent it for a new one if the connection still has to be made.",
	}
	tooMany = problem{
		Status: http.StatusTooManyRequests, Title: "This link has been followed too often at once",
		Text:   "Too many consents have been begun with it that have not ended. Nothing was changed.",
		Advice: "Wait ten minutes, then open your connect link once more.",
	}
	noConsent = problem{
		Status: http.StatusBadRequest, Title: "Nobody needs to consent here",
		Text: "This integration connects by itself with its client credentials, on first use. Nothing was changed.",
	}
	storeDown = problem{
		Status: http.StatusServiceUnavailable, Title: "We cannot do this right now",
		Text:   "Our own store does not answer. Nothing was changed.",
		Advice: "Wait a moment, then open your connect link once more.",
	}
	notSaved = problem{
		Status: http.StatusServiceUnavailable, Title: "The connection could not be stored",
		Text:   "The provider gave its consent, but our own store did not answer in time.",
		Advice: "Wait a moment, then open your connect link once more.",
	}
	badCallback = problem{
		Status: http.StatusBadRequest, Title: "This answer cannot be used",
		Text: "What the provider sent back is not a complete answer to a consent. Nothing was changed.", Advice: openAgain,
	}
	otherBrowser = problem{
		Status: http.StatusBadRequest, Title: "This consent was not started in this browser",
		Text:   "A consent has to end in the browser in which it began, with cookies allowed. Nothing was changed.",
		Advice: "Open your connect link in the browser in which you want to consent.",
	}
	staleCallback = problem{
		Status: http.StatusBadRequest, Title: "This consent has ended",
		Text: "It was completed already, or took longer than ten minutes. Nothing was changed.", Advice: openAgain,
	}
	otherIssuer = problem{
		Status: http.StatusBadRequest, Title: "This answer comes from somebody else",
		Text: "It does not name the provider that was asked. Nothing was changed.", Advice: openAgain,
	}
	changedSetup = problem{
		Status: http.StatusBadRequest, Title: "The integration has changed meanwhile",
		Text: "Its configuration is not the one that you consented under. Nothing was changed.", Advice: openAgain,
	}
	resultGone = problem{
		Status: http.StatusNotFound, Title: "There is nothing to show any more",
		Text: "The result of a consent is shown for ten minutes. The connection itself stays as it is.",
	}
)

// unresolved says which placeholder of the configuration has no value for the org.
func unresolved(in *Integration, org tokenstore.Org, err error) *problem {
	return &problem{
		Status: http.StatusBadRequest, Title: in.Name + " cannot be connected yet",
		Text:   "The configuration is not complete for " + orgName(org) + ": " + err.Error() + ". Nothing was changed.",
		Advice: "The operator has to add the value.",
	}
}

func exchangeFailed(in *Integration, got reply) *problem {
	return &problem{
		Status: http.StatusBadGateway, Title: "The provider did not complete the consent",
		Text: "It did not give a token for " + in.Name + ". " + got.text + " Nothing was changed.", Advice: openAgain, Code: got.code,
	}
}

func misidentifiedPage(in *Integration, fault string) *problem {
	return &problem{
		Status: http.StatusBadGateway, Title: "The provider did not complete the consent",
		Text: "It sent " + fault + " for " + in.Name + ". Nothing was changed.", Advice: openAgain,
	}
}

func deniedPage(in *Integration, slot tokenstore.Slot, code, text string) *problem {
	return &problem{
		Status: http.StatusForbidden, Title: in.Name + " was not connected",
		Text: text + " Nothing was changed for " + orgName(slot.Org) + ".", Advice: openAgain, Code: code,
	}
}

// orgName is how pages name an org in a sentence.
func orgName(org tokenstore.Org) string {
	if org == tokenstore.Global {
		return "the global connection"
	}
	return string(org)
}

// denials are the standard errors of an authorization response (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6).
var denials = map[string]string{
	"access_denied":              "The consent was denied.",
	"consent_required":           "The provider needs a consent that was not given.",
	"interaction_required":       "The provider needs you to sign in or to consent, which did not happen.",
	"login_required":             "The provider needs you to sign in, which did not happen.",
	"account_selection_required": "The provider needs you to choose an account, which did not happen.",
	"invalid_request":            "The provider did not accept our request: the integration's configuration has to be checked.",
	"invalid_scope":              "The provider does not know a scope that we asked for, or may not grant it.",
	"unauthorized_client":        "The provider does not allow our client to ask for this.",
	"unsupported_response_type":  "The provider does not support this way of consenting.",
	"server_error":               "The provider had an error of its own.",
	"temporarily_unavailable":    "The provider is unavailable for the moment.",
}

// denial returns the standard code of an authorization error, or "other", and a sentence of ours.
func denial(code string) (standard, text string) {
	if text, ok := denials[code]; ok {
		return code, text
	}
	return "other", "The provider answered with an error."
}
