package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// failure is why a request was not done, as the API's problem and as the screen's notice. Detail is for people and holds no
// secret.
type failure struct {
	status     int
	code       string
	detail     string
	retryAfter time.Duration
	cause      error // for the log; nil when the code says everything
}

// Error returns the code and the detail.
func (f *failure) Error() string {
	if f.cause != nil {
		return f.cause.Error()
	}
	return f.code + ": " + f.detail
}

// titles are the codes that this package can answer, with their titles.
var titles = map[string]string{
	"bad_request":              "The request is malformed",
	"org_invalid":              "That is not an organization's id",
	"operator_unauthenticated": "An operator's token is needed",
	"operator_forbidden":       "Not allowed",
	"not_found":                "There is no such thing",
	"method_not_allowed":       "Wrong method",
	"body_too_large":           "The request is too large",
	"grant_refused":            "The provider refused the imported grant",
	"not_connected":            "Not connected",
	"needs_reconnect":          "The connection needs a new consent",
	"rate_limited":             "Too many requests",
	"refresh_pending":          "A refresh is still running",
	"idp_unavailable":          "The identity provider is unavailable",
	"idp_rejected_client":      "The identity provider refuses our client",
	"store_unavailable":        "The token store is unavailable",
	"record_unreadable":        "The stored record cannot be read",
	"not_supported":            "This store cannot do that",
	"rekey_incomplete":         "Records are still being saved under an older key",
	"internal_error":           "Something went wrong",
}

// reasons maps what a Broker or the shelf says to a status, a code and a sentence. The first match counts.
var reasons = []struct {
	reason error
	status int
	code   string
	detail string
}{
	{authflow.ErrUnknownIntegration, 404, "not_found", "There is no integration of this name."},
	{authflow.ErrBadLink, 400, "bad_request", "No such connect link can be made."},
	{authflow.ErrNoLink, 404, "not_found", "There is no open connect link of this id."},
	{authflow.ErrNotAwaiting, 404, "not_found", "Nothing awaits confirmation for this connection."},
	{authflow.ErrNotConnected, 424, "not_connected", "This connection was never made, or has been disconnected."},
	{authflow.ErrUnresolved, 424, "not_connected", "A placeholder of this integration has no value for this organization."},
	{authflow.ErrReconnect, 424, "needs_reconnect", "The grant is dead: only a new consent helps."},
	{authflow.ErrGrantRefused, 422, "grant_refused", "The provider refused the refresh token; nothing was changed."},
	{authflow.ErrPending, 503, "refresh_pending", "A refresh is still running; its result will show here."},
	{authflow.ErrProvider, 503, "idp_unavailable", "The identity provider did not answer usefully; it will be tried again."},
	{authflow.ErrClient, 503, "idp_rejected_client", "The identity provider refuses our client id or secret; no connection was changed."},
	{authflow.ErrStore, 503, "store_unavailable", "The token store cannot be reached."},
	{authflow.ErrUnreadable, 503, "record_unreadable", "The stored record cannot be decrypted or parsed; it was left untouched."},
	{tokenstore.ErrUnavailable, 503, "store_unavailable", "The token store cannot be reached."},
	{tokenstore.ErrUnreadable, 503, "record_unreadable", "The stored record cannot be decrypted or parsed; it was left untouched."},
	{context.DeadlineExceeded, 503, "store_unavailable", "The answer did not come in time."},
}

// failureOf says what to answer to an error of any kind.
func failureOf(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	for _, row := range reasons {
		if !errors.Is(err, row.reason) {
			continue
		}
		f := &failure{status: row.status, code: row.code, detail: row.detail, cause: err}
		if e, ok := errors.AsType[*authflow.Error](err); ok {
			f.detail = cmp.Or(e.Detail, row.detail)
			f.retryAfter = e.RetryAfter
		}
		return f
	}
	return &failure{status: http.StatusInternalServerError, code: "internal_error", detail: "The log says more.", cause: err}
}

// notFoundName is the failure of a name that no integration has.
func notFoundName() *failure {
	return &failure{status: http.StatusNotFound, code: "not_found", detail: "There is no integration of this name."}
}

// badRequest is a failure of the request's own form.
func badRequest(format string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, code: "bad_request", detail: fmt.Sprintf(format, args...)}
}

func (f *failure) title() string { return titles[f.code] }

// retryable says whether the same request may succeed later without anybody's doing.
func (f *failure) retryable() bool {
	return f.status == http.StatusServiceUnavailable && f.code != "record_unreadable" || f.status == http.StatusTooManyRequests
}

// retryHeader sets Retry-After on every 503 and 429: when the cause says nothing, soon.
func (f *failure) retryHeader(w http.ResponseWriter) {
	if f.status != http.StatusServiceUnavailable && f.status != http.StatusTooManyRequests {
		return
	}
	wait := cmp.Or(f.retryAfter, 5*time.Second)
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int((wait+time.Second-1)/time.Second))))
}

// problem is the body of a failed API call (RFC 9457).
type problem struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Status      int    `json:"status"`
	Detail      string `json:"detail"`
	Code        string `json:"code"`
	Retryable   bool   `json:"retryable"`
	RequestID   string `json:"request_id"`
	Integration string `json:"integration,omitempty"`
	Org         string `json:"org,omitempty"`
}

// write answers an API call.
func (f *failure) write(w http.ResponseWriter, requestID, integration, org string) {
	f.retryHeader(w)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Bifrost-Error", f.code)
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="bifrost"`)
	}
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(problem{ // a client that has gone is not our failure
		Type: "urn:bifrost:problem:" + f.code, Title: f.title(), Status: f.status, Detail: f.detail, Code: f.code, Retryable: f.retryable(),
		RequestID: requestID, Integration: integration, Org: org,
	})
}
