package console

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// parseOrg reads an org as people and paths write it; the global connection is written @global.
func parseOrg(s string) (tokenstore.Org, error) {
	if org := tokenstore.Org(s); org == tokenstore.Global || org.Valid() {
		return org, nil
	}
	return "", &failure{status: http.StatusBadRequest, code: "org_invalid",
		detail: "An organization's id begins with a letter or digit, goes on with letters, digits, dots, dashes or underscores, and has at most 128 of them."}
}

// calls are the API's handlers of one path, by method. They return the answer's body (nil for 204, a
// *tokenstore.Backup for its bytes), or why there is none.
type calls map[string]func(*http.Request, visit) (any, error)

// api returns the handler of one of the API's paths. A session cookie does not open it, so that no page can use it through a
// browser: only an operator's token does, or the open mode.
func (c *console) api(m calls, asks ...need) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		v, body, err := c.answerTo(w, r, m, theNeed(asks))
		if err != nil {
			c.answerFailure(w, r, v, err)
			return
		}
		answer(w, body)
	})
}

// answerTo does what a call asks for, and says by whom. Who may not call learns nothing, not even which methods there are.
func (c *console) answerTo(w http.ResponseWriter, r *http.Request, m calls, asks need) (visit, any, error) {
	if c.open() && !c.admits(r) || c.cross.Check(r) != nil {
		return visit{}, nil, &failure{status: http.StatusForbidden, code: "operator_forbidden",
			detail: "Requests of other sites, or under another host, are not answered."}
	}
	v, err := c.bearer(r)
	if err != nil {
		return visit{}, nil, err
	}
	call, ok := pick(w, r, m)
	if !ok {
		return v, nil, &failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed",
			detail: "This path answers " + w.Header().Get("Allow") + "."}
	}
	if err := c.admit(v, r, asks); err != nil {
		return v, nil, err
	}
	body, err := call(r, v)
	return v, body, err
}

// bearer returns the visit of the operator whose token the request carries (RFC 6750 section 2.1).
func (c *console) bearer(r *http.Request) (visit, error) {
	if c.open() {
		return c.visitBy(anonymous, Rights{}), nil
	}
	unknown := &failure{status: http.StatusUnauthorized, code: "operator_unauthenticated", detail: "Send an operator's token as Authorization: Bearer."}
	sent := r.Header.Values("Authorization")
	if len(sent) != 1 {
		return visit{}, unknown
	}
	scheme, token, _ := strings.Cut(sent[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return visit{}, unknown
	}
	op, ok := c.operator(strings.TrimSpace(token))
	if !ok && !c.wrong.allows() {
		return visit{}, &failure{status: http.StatusTooManyRequests, code: "rate_limited", detail: "Too many wrong tokens."}
	}
	if !ok {
		c.logAction(r.Context(), "sign_in_failed", visit{operator: anonymous}, tokenstore.Slot{}, unknown)
		return visit{}, unknown
	}
	return c.visitBy(op.Name, op.Rights), nil
}

// answer writes a successful call's body.
func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if body == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if b, ok := body.(*tokenstore.Backup); ok {
		stream(w, b)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that has gone is not our failure
}

// answerFailure writes a failed call's problem; what only we can explain goes to the log, under the same request id. Names are
// confirmed only to who sees them.
func (c *console) answerFailure(w http.ResponseWriter, r *http.Request, v visit, err error) {
	f, id := failureOf(err), originOf(r.Context()).request
	if f.status >= http.StatusInternalServerError && f.cause != nil {
		c.log.WarnContext(r.Context(), "api call failed", "request_id", id, "code", f.code, "cause", f.cause.Error())
	}
	integration, org := "", ""
	if v.sees != nil {
		if in, ok := v.sees.Integration(r.PathValue("name")); ok {
			integration = in.Name
		}
		if o, err := parseOrg(r.PathValue("org")); err == nil {
			org = string(o)
		}
	}
	f.write(w, id, integration, org)
}

func (c *console) apiNotFound(w http.ResponseWriter, r *http.Request) {
	c.answerFailure(w, r, visit{}, &failure{status: http.StatusNotFound, code: "not_found", detail: "The API has no such path."})
}

// slotOf returns the connection that a path names, if the operator sees it.
func (c *console) slotOf(r *http.Request, v visit, org string) (*authflow.Integration, tokenstore.Slot, error) {
	in, ok := v.sees.Integration(r.PathValue("name"))
	if !ok {
		return nil, tokenstore.Slot{}, notFoundName()
	}
	o, err := parseOrg(org)
	if err != nil {
		return nil, tokenstore.Slot{}, err
	}
	return in, tokenstore.Slot{Integration: in.Name, Org: o}, nil
}

// readJSON decodes exactly one JSON object without unknown fields; an empty body leaves into as it is.
func readJSON(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &failure{status: http.StatusRequestEntityTooLarge, code: "body_too_large", detail: "The body is too large."}
	}
	return badRequest("The body must be one JSON object with the fields of this call alone.")
}
