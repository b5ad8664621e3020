package authflow

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxTokenAnswer = 1 << 20 // more is not a token
	formType       = "application/x-www-form-urlencoded"
)

// Errors that reach the OAuth library alone: their text says nothing of the request or the answer.
var (
	errAnswerTaken = errors.New("authflow: the answer has been taken")
	errSecondPost  = errors.New("authflow: a second POST in one call")
	errNoAnswer    = errors.New("authflow: no answer")
	errRevoked     = errors.New("authflow: the request has been given up")
)

// onePost is the [http.RoundTripper] of one call: it sends one request and takes the answer. It hands no response on, so
// that nobody above it can follow a redirect, parse, quote or retry.
type onePost struct {
	transport http.RoundTripper
	params    map[string]string // added to the form; they replace nothing

	used   bool
	answer *tokenAnswer // nil: none came
	sent   bool         // without answer: whether bytes of the body may have been sent
	fault  string       // without answer: why, in our words
}

// tokenAnswer is what a token endpoint sent. It holds secrets and provider text: nothing but classify reads it.
type tokenAnswer struct {
	status       int
	header       http.Header
	body         []byte
	complete     bool // the body was read to its end
	began, ended time.Time
}

// RoundTrip implements [http.RoundTripper]. It always returns an error.
func (p *onePost) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.used {
		return nil, errors.Join(errSecondPost, closeBody(r))
	}
	p.used = true
	out, body, err := p.prepare(r)
	if err != nil {
		p.fault = "the request could not be made"
		return nil, errNoAnswer
	}
	ctx, done := patient(r.Context())
	defer done()
	began := time.Now()
	res, err := p.transport.RoundTrip(out.WithContext(ctx))
	if err != nil {
		if own := r.Context().Err(); own != nil && errors.Is(err, context.Canceled) {
			err = own // done in patient's way
		}
		p.sent = body.giveUp()
		p.fault = faultOf(err, p.sent)
		return nil, errNoAnswer
	}
	defer func() { _ = res.Body.Close() }() // it has been read as far as it matters
	p.answer = &tokenAnswer{status: res.StatusCode, header: res.Header, began: began}
	p.answer.body, err = io.ReadAll(io.LimitReader(res.Body, maxTokenAnswer+1))
	p.answer.complete = err == nil && len(p.answer.body) <= maxTokenAnswer
	p.answer.ended = time.Now()
	return nil, errAnswerTaken
}

// The last look at a POST whose deadline has passed unnoticed, for wakeLate or longer, because the process was stopped: an answer
// that came meanwhile lies in the socket, and may be all that there is of a one-time token.
const (
	wakeLate = 100 * time.Millisecond
	lastLook = time.Second // well below intentGrace
)

// patient returns a context that ends with ctx, or, where the end of ctx was noticed late, with the last look. done ends it.
func patient(ctx context.Context) (_ context.Context, done func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if deadline, is := ctx.Deadline(); is && time.Since(deadline) >= wakeLate && !errors.Is(ctx.Err(), context.Canceled) {
			pause(longer, lastLook)
		}
		cancel()
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// prepare returns the request to send. It has no GetBody, without which a transport cannot send a body twice.
func (p *onePost) prepare(r *http.Request) (*http.Request, *onceBody, error) {
	raw, err := io.ReadAll(r.Body)
	if err = errors.Join(err, closeBody(r)); err != nil {
		return nil, nil, err
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, nil, err
	}
	for name, value := range p.params {
		if !form.Has(name) {
			form.Set(name, value)
		}
	}
	raw = []byte(form.Encode())
	body := &onceBody{r: bytes.NewReader(raw), over: func() bool { return over(r.Context()) }}
	out := r.Clone(r.Context())
	out.Body, out.GetBody, out.ContentLength = body, nil, int64(len(raw))
	out.Header.Set("Accept", "application/json") // some providers answer form-encoded otherwise
	return out, body, nil
}

func closeBody(r *http.Request) error {
	if r.Body == nil {
		return nil
	}
	return r.Body.Close()
}

// onceBody is a request body that knows whether it was touched. Until then nothing of the form, which holds the refresh token
// or the code, can have been sent. It is the last look before that: once the POST's time is over, another replica may use the
// token, and a process that was stopped meanwhile sends nothing any more.
type onceBody struct {
	r     io.Reader
	over  func() bool // whether the POST's time is over
	state atomic.Int32
}

const (
	untouched int32 = iota
	touched
	givenUp
)

// Read implements [io.Reader].
func (b *onceBody) Read(p []byte) (int, error) {
	if b.state.Load() == untouched {
		to := touched
		if b.over() {
			to = givenUp
		}
		b.state.CompareAndSwap(untouched, to)
	}
	if b.state.Load() == givenUp {
		return 0, errRevoked
	}
	return b.r.Read(p)
}

// over tells whether ctx has ended, by the wall clock too: the other one may stand still while a machine sleeps.
func over(ctx context.Context) bool {
	deadline, is := ctx.Deadline()
	return ctx.Err() != nil || is && !time.Now().Round(0).Before(deadline.Round(0))
}

// Close implements [io.Closer].
func (b *onceBody) Close() error { return nil }

// giveUp reports whether the body was touched; if not, it never will be, whatever goroutine a transport has left behind.
func (b *onceBody) giveUp() bool {
	b.state.CompareAndSwap(untouched, givenUp)
	return b.state.Load() == touched
}

// faultOf says why no answer came. Errors of the network name hosts and addresses, and those of TLS quote the peer: none of
// their text is used.
func faultOf(err error, sent bool) string {
	if sent {
		if isTimeout(err) {
			return "no answer came in time"
		}
		return "the connection ended before the answer"
	}
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dns):
		return "the endpoint's name cannot be resolved"
	case errors.As(err, &cert):
		return "the endpoint's certificate cannot be verified"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the endpoint refuses connections"
	case isTimeout(err):
		return "the endpoint could not be reached in time"
	}
	return "the endpoint could not be reached"
}

func isTimeout(err error) bool {
	var net net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &net) && net.Timeout()
}
