package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// code names a failure made by the proxy, for callers to decide on. The set is closed.
type code string

const (
	codeUnknownRoute     code = "unknown_route"
	codeBadRequest       code = "bad_request"
	codeMethod           code = "method_not_allowed"
	codeOrgRequired      code = "org_required"
	codeOrgInvalid       code = "org_invalid"
	codeUnauthenticated  code = "caller_unauthenticated"
	codeForbidden        code = "caller_forbidden"
	codeBodyTooLarge     code = "body_too_large"
	codeRateLimited      code = "rate_limited"
	codeNotConnected     code = "not_connected"
	codeNeedsReconnect   code = "needs_reconnect"
	codeRefreshPending   code = "refresh_pending"
	codeIdPUnavailable   code = "idp_unavailable"
	codeIdPRejected      code = "idp_rejected_client"
	codeStoreUnavailable code = "store_unavailable"
	codeUnreadable       code = "record_unreadable"
	codeOverloaded       code = "overloaded"
	codeUnreachable      code = "upstream_unreachable"
	codeUpstreamDenied   code = "upstream_denied"
	codeUpstreamTimeout  code = "upstream_timeout"

	// codeClientGone is for the log alone: there is nobody left to answer.
	codeClientGone code = "client_gone"
)

// statusClientGone is logged where the caller went away before an answer.
const statusClientGone = 499

// meaning is what a code tells: its status, its title, a detail where the failure has none of its own, and whether the same
// request may succeed later with nobody changing anything.
type meaning struct {
	status    int
	title     string
	detail    string
	retryable bool
}

var meanings = map[code]meaning{
	codeUnknownRoute:     {404, "No such route", "No integration has this route.", false},
	codeBadRequest:       {400, "Request refused", "The request target has dot segments, backslashes, control bytes, a fragment, a malformed escape or a foreign host.", false},
	codeMethod:           {405, "Method not allowed", "This integration does not take the method.", false},
	codeOrgRequired:      {400, "Org missing", "", false},
	codeOrgInvalid:       {400, "Org invalid", "", false},
	codeUnauthenticated:  {401, "Caller unknown", "Send a caller key as Bearer token or in X-Bifrost-Key.", false},
	codeForbidden:        {403, "Not permitted", "This caller may not use this org, integration, method or path.", false},
	codeBodyTooLarge:     {413, "Body too large", "The request body is larger than this integration takes.", false},
	codeRateLimited:      {429, "Too many requests", "Wait and try again.", true},
	codeNotConnected:     {424, "Not connected", "Nobody has connected this integration for this org.", false},
	codeNeedsReconnect:   {424, "Reconnect needed", "The provider has ended the connection. Only a new consent helps.", false},
	codeRefreshPending:   {503, "Refresh still running", "A new token is on its way. Try again.", true},
	codeIdPUnavailable:   {503, "Identity provider unavailable", "The provider's token endpoint cannot be used at the moment.", true},
	codeIdPRejected:      {503, "Client refused", "The identity provider refuses our client id or secret. An operator must correct them.", true},
	codeStoreUnavailable: {503, "Token store unavailable", "The token store cannot be reached, and nothing valid is in memory.", true},
	codeUnreadable:       {503, "Record unreadable", "The stored connection cannot be read. It has been left untouched.", false},
	codeOverloaded:       {503, "Overloaded", "Too many requests at once.", true},
	codeUnreachable:      {502, "Upstream unreachable", "The upstream could not be reached, or ended the connection without an answer.", true},
	codeUpstreamDenied:   {502, "Upstream denied", "The egress rules refuse the upstream's address. An operator can allow private ones with allow_private.", false},
	codeUpstreamTimeout:  {504, "Upstream timeout", "The upstream did not begin to answer in time.", true},
	codeClientGone:       {statusClientGone, "Client gone", "", false},
}

// failure is why the proxy itself answers a request.
type failure struct {
	code       code
	detail     string          // one sentence without secrets; empty: the code's own
	slot       tokenstore.Slot // the connection that failed, where a Broker said so
	retryAfter time.Duration   // zero: unknown
	cause      error           // for the debug log; nil if there is nothing to add
}

func fail(c code, detail string) *failure { return &failure{code: c, detail: detail} }

func (f *failure) Error() string { return "proxy: " + string(f.code) }
func (f *failure) Unwrap() error { return f.cause }

// defaultRetryAfter is told where nothing better is known.
const defaultRetryAfter = 5 * time.Second

// failureOf is the one way from errors to codes. ctx is the caller's: its end means that there is nobody to answer.
func failureOf(ctx context.Context, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if f, ok := bodyFailure(err); ok {
		return f
	}
	if ctx.Err() != nil {
		return &failure{code: codeClientGone, cause: err}
	}
	if _, ok := errors.AsType[*deniedError](err); ok {
		return &failure{code: codeUpstreamDenied, cause: err}
	}
	if _, ok := errors.AsType[*dialError](err); ok {
		return &failure{code: codeUnreachable, cause: err}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return &failure{code: codeUpstreamTimeout, cause: err}
	}
	return &failure{code: codeUnreachable, cause: err}
}

// credentialFailure maps what a Broker answers.
func credentialFailure(ctx context.Context, err error) *failure {
	c := codeStoreUnavailable
	switch {
	case ctx.Err() != nil:
		c = codeClientGone
	case errors.Is(err, authflow.ErrNotConnected), errors.Is(err, authflow.ErrUnresolved):
		c = codeNotConnected
	case errors.Is(err, authflow.ErrReconnect):
		c = codeNeedsReconnect
	case errors.Is(err, authflow.ErrPending):
		c = codeRefreshPending
	case errors.Is(err, authflow.ErrProvider):
		c = codeIdPUnavailable
	case errors.Is(err, authflow.ErrClient):
		c = codeIdPRejected
	case errors.Is(err, authflow.ErrStore):
		c = codeStoreUnavailable
	case errors.Is(err, authflow.ErrUnreadable):
		c = codeUnreadable
	case errors.Is(err, authflow.ErrUnknownIntegration):
		c = codeUnknownRoute // removed by a reload while the request was under way
	}
	f := &failure{code: c, cause: err}
	if told, ok := errors.AsType[*authflow.Error](err); ok {
		f.detail, f.slot, f.retryAfter = told.Detail, told.Slot, told.RetryAfter
	}
	return f
}

// bodyFailure maps what reading the caller's body ended in.
func bodyFailure(err error) (*failure, bool) {
	body, ok := errors.AsType[*bodyError](err)
	if !ok {
		return nil, false
	}
	if _, ok := errors.AsType[*http.MaxBytesError](body.err); ok {
		return &failure{code: codeBodyTooLarge}, true
	}
	if _, ok := errors.AsType[net.Error](body.err); ok || errors.Is(body.err, io.ErrUnexpectedEOF) {
		return &failure{code: codeClientGone, cause: err}, true
	}
	return &failure{code: codeBadRequest, detail: "The request body is malformed.", cause: err}, true
}

// problem is the body of a failure (RFC 9457).
type problem struct {
	Type        string `json:"type"`
	Title       string `json:"title"`
	Status      int    `json:"status"`
	Detail      string `json:"detail"`
	Code        code   `json:"code"`
	Retryable   bool   `json:"retryable"`
	RequestID   string `json:"request_id"`
	Integration string `json:"integration,omitempty"`
	Org         string `json:"org,omitempty"`
	ConnectURL  string `json:"connect_url,omitempty"`
}

// problemOf tells a failure of the request. What a caller may not use is answered with the same bytes whatever it named.
func (x *exchange) problemOf(f *failure) problem {
	m := meanings[f.code]
	body := problem{
		Type:      "urn:bifrost:problem:" + string(f.code),
		Title:     m.title,
		Status:    m.status,
		Detail:    m.detail,
		Code:      f.code,
		Retryable: m.retryable,
		RequestID: x.id,
	}
	if f.detail != "" {
		body.Detail = f.detail
	}
	if f.code == codeUnauthenticated || f.code == codeForbidden || x.route == nil {
		return body
	}
	body.Integration = x.route.Integration
	body.Org = string(x.org)
	if x.proxy.connectURL != nil && (f.code == codeNotConnected || f.code == codeNeedsReconnect) {
		slot := f.slot
		if slot.Org == "" {
			slot = x.slot()
		}
		body.ConnectURL = x.proxy.connectURL(slot)
	}
	return body
}

// answer writes a failure. It is used before any byte of an upstream's answer has been passed on.
func (x *exchange) answer(f *failure) {
	x.failed(f)
	if f.code == codeClientGone {
		panic(http.ErrAbortHandler)
	}
	h := x.w.Header()
	h.Set("X-Bifrost-Error", string(f.code))
	switch {
	case f.code == codeUnauthenticated:
		h.Set("WWW-Authenticate", `Bearer realm="bifrost"`)
	case f.code == codeMethod && x.route != nil:
		h["Allow"] = x.methods()
	case x.status == http.StatusServiceUnavailable || x.status == http.StatusTooManyRequests:
		h.Set("Retry-After", retryAfter(f.retryAfter))
	}
	x.writeJSON("application/problem+json", x.problemOf(f))
}

// writeJSON writes an answer of our own with the event's status. v must be of what always has a JSON form.
func (x *exchange) writeJSON(contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	body = append(body, '\n')
	h := x.w.Header()
	x.setOwnHeaders(h)
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	x.w.WriteHeader(x.status)
	_, _ = x.w.Write(body) // a caller who is gone is no failure of ours
	x.limitRest()
}

// retryAfter formats whole seconds, rounded up (RFC 9110 section 10.2.3).
func retryAfter(d time.Duration) string {
	if d <= 0 {
		d = defaultRetryAfter
	}
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// causeOf tells a cause in words that hold no secret: our own errors and the operating system's are written that way, while
// net/http quotes what an upstream sent.
func causeOf(err error) string {
	if told, ok := errors.AsType[*authflow.Error](err); ok {
		return told.Error()
	}
	if denied, ok := errors.AsType[*deniedError](err); ok {
		return denied.Error()
	}
	if dial, ok := errors.AsType[*dialError](err); ok {
		return dial.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return "the connection ended"
	}
	return fmt.Sprintf("%T", err)
}
