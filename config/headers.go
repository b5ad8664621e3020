package config

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// authorizationReserved and tokenReserved are the parameters that are ours to set (RFC 6749, 7636, 9101, 7523), or that
// would carry a secret through the browser.
var (
	authorizationReserved = []string{"response_type", "client_id", "redirect_uri", "scope", "state", "code_challenge",
		"code_challenge_method", "request", "request_uri", "client_secret", "code", "code_verifier"}
	tokenReserved = []string{"grant_type", "client_id", "client_secret", "redirect_uri", "scope", "code", "code_verifier",
		"refresh_token", "client_assertion", "client_assertion_type"}
)

// readParams reads the parameters to add to requests. What bifrost sets itself may not stand there, nor in a URL's query:
// a parameter may be sent once (RFC 6749 section 3.1).
func (in *Integration) readParams(o *object) {
	authorization, token := slices.Clone(authorizationReserved), slices.Clone(tokenReserved)
	if in.Audience != "" {
		authorization, token = append(authorization, "audience"), append(token, "audience")
	}
	in.AuthorizationParams = readMap(o.at("authorization_params"), queryMode(unreserved(authorization)), templated)
	in.TokenParams = readMap(o.at("token_params"), unreserved(token), templated)
	checkQuery(o.at("authorization_url"), in.AuthorizationURL, authorization, in.AuthorizationParams)
	checkQuery(o.at("token_url"), in.TokenURL, token, in.TokenParams)
	checkMode(o.at("authorization_url"), in.AuthorizationURL)
}

const badMode = "asks for another response_mode than query: bifrost takes the provider's answer from the callback's query, remove it"

// queryMode refuses a response_mode by which no consent could ever end: with form_post browsers leave our cookie at home, and a
// fragment reaches no server. It leaves the rest to allowed.
func queryMode(allowed func(node, string) bool) func(node, string) bool {
	return func(at node, name string) bool {
		if value, _ := at.text(); isMode(name) && value != "query" {
			at.problem(badMode)
			return false
		}
		return allowed(at, name)
	}
}

func isMode(name string) bool { return strings.ToLower(strings.TrimSpace(name)) == "response_mode" }

// checkMode does the same for a URL's query.
func checkMode(at node, address string) {
	_, query, _ := strings.Cut(sample(address), "?")
	values, _ := url.ParseQuery(query) // escapes were checked before
	for name, v := range values {
		if isMode(name) && v[0] != "query" {
			at.problem(badMode)
			return
		}
	}
}

func unreserved(reserved []string) func(node, string) bool {
	return func(at node, name string) bool {
		ok := !slices.Contains(reserved, strings.ToLower(strings.TrimSpace(name)))
		if !ok {
			at.problem("is set by bifrost itself: remove it")
		}
		return ok
	}
}

func checkQuery(at node, address string, reserved []string, params map[string]string) {
	_, query, _ := strings.Cut(sample(address), "?")
	values, _ := url.ParseQuery(query) // escapes were checked before
	for name, v := range values {
		_, twice := params[name]
		if twice || len(v) > 1 || slices.Contains(reserved, strings.ToLower(name)) {
			at.problem("has a parameter in its query that is set elsewhere too, by bifrost or in the parameters: remove it")
			return
		}
	}
}

// ownedHeaders are the names that a request to the upstream gets from bifrost or loses on the way; see ownedPrefixes.
var (
	ownedHeaders = []string{"authorization", "connection", "content-length", "cookie", "expect", "forwarded", "host", "http2-settings",
		"keep-alive", "te", "trailer", "traceparent", "tracestate", "transfer-encoding", "upgrade", "via", "x-http-method",
		"x-forwarded", "x-http-method-override", "x-method-override", "x-real-ip", "x-request-id", "x-rewrite-url"}
	ownedPrefixes = []string{"proxy-", "sec-", "x-bifrost-", "x-forwarded-", "x-org-", "x-original-"}
)

// owned tells whether a header is ours in any spelling that some server takes for the same name.
func owned(name string) bool {
	name = fold(name)
	return slices.Contains(ownedHeaders, name) ||
		slices.ContainsFunc(ownedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

func fold(name string) string {
	return strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name))
}

var (
	errHeader = errors.New("is no header name")
	errOwned  = errors.New("is a header that bifrost sets or removes itself")
)

func headerName(s string) (string, error) {
	if !tokenPattern.MatchString(s) {
		return "", errHeader
	}
	if owned(s) && !strings.EqualFold(s, "Authorization") {
		return "", errOwned
	}
	return http.CanonicalHeaderKey(s), nil
}

var queryName = upTo(64, `^[A-Za-z0-9._~-]+$`)

const accessToken = "{access_token}"

// injectFormat is how an access token is sent.
func injectFormat(s string) (string, error) {
	before, after, _ := strings.Cut(s, accessToken)
	if strings.Count(s, accessToken) != 1 || strings.ContainsAny(before+after, "{}") {
		return "", errors.New(`must hold {access_token} once, such as "Bearer {access_token}"`)
	}
	return line(s)
}

// readInjection reads where the credential goes, and the headers beside it.
func (in *Integration) readInjection(o *object) {
	in.InjectHeader, in.InjectFormat = "Authorization", "Bearer "+accessToken
	inject, _ := o.at("inject").object()
	header, format, query := inject.at("header"), inject.at("format"), inject.at("query")
	set(header, &in.InjectHeader, headerName)
	set(format, &in.InjectFormat, injectFormat)
	if query.given() {
		if header.given() || format.given() {
			query.problem("stands beside header or format: the credential is sent in one place")
		}
		set(query, &in.InjectQuery, func(s string) (string, error) {
			return matching(s, queryName, errors.New("must be the name of a query parameter: letters, digits, . _ ~ - alone"))
		})
		in.InjectHeader, in.InjectFormat = "", accessToken
	}
	inject.close()
	in.readHeaders(o)
}

func (in *Integration) readHeaders(o *object) {
	seen := unique{}
	in.Headers = readMap(o.at("headers"), func(at node, name string) bool {
		switch {
		case !tokenPattern.MatchString(name):
			at.problem("%v", errHeader)
		case owned(name):
			at.problem("%v", errOwned)
		case fold(name) == fold(in.InjectHeader):
			at.problem("is the header of the credential, see inject: remove it")
		default:
			seen.check(at, fold(name))
			return true
		}
		return false
	}, templated)
}
