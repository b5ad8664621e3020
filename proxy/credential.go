package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// How much of a refused answer is read, and for how long, so that its connection can be used again.
const (
	maxRefusal  = 64 << 10
	refusalTime = time.Second
)

// RoundTrip implements http.RoundTripper for httputil.ReverseProxy: it gets a credential, sends the request with it, and sends
// it once more with a newer one if the upstream refuses the first with 401 and the body can be replayed. Without a usable
// credential nothing is sent. in is never given the credential.
func (x *exchange) RoundTrip(in *http.Request) (*http.Response, error) {
	x.prepareBody(in)
	cred, err := x.proxy.broker.Token(x.r.Context(), x.slot())
	if err != nil {
		return nil, credentialFailure(x.r.Context(), err)
	}
	first, err := x.outgoing(in, cred)
	if err != nil {
		return nil, err
	}
	refused, err := x.route.transport.RoundTrip(first)
	if err != nil || refused.StatusCode != http.StatusUnauthorized {
		return withoutTrailer(refused), err
	}
	fresh, err := x.proxy.broker.Replace(x.r.Context(), cred)
	if err != nil {
		return withoutTrailer(refused), nil // there is no better token: the upstream's word stands
	}
	if first.Body != nil {
		_ = first.Body.Close() // never fails
		if !x.body.replayable() {
			return withoutTrailer(refused), nil
		}
	}
	second, err := x.outgoing(in, fresh)
	if err != nil {
		return withoutTrailer(refused), nil
	}
	endRefusal(refused.Body)
	x.route.metrics.replays.Inc()
	answer, err := x.route.transport.RoundTrip(second)
	return withoutTrailer(answer), err
}

// endRefusal ends a refused answer. An upstream that never ends it costs its connection, not the caller's request.
func endRefusal(refused io.ReadCloser) {
	late := time.AfterFunc(refusalTime, func() { _ = refused.Close() }) // it ends the copy
	_, _ = io.CopyN(io.Discard, refused, maxRefusal)                    // only to keep the connection
	late.Stop()
	_ = refused.Close() // nobody wants the rest
}

// slot is the connection that the request asks for.
func (x *exchange) slot() tokenstore.Slot {
	return tokenstore.Slot{Integration: x.route.Integration, Org: x.org}
}

// outgoing makes the request that carries cred, and notes whose credential it is.
func (x *exchange) outgoing(in *http.Request, cred authflow.Credential) (*http.Request, error) {
	secret := cred.Header()
	if err := x.checkOwner(cred, secret); err != nil {
		return nil, err
	}
	t, err := x.route.targetOf(cred.Slot.Org)
	if err != nil {
		return nil, &failure{code: codeNotConnected, detail: "The upstream's address cannot be made for this org.", cause: err}
	}
	out, err := x.upstreamRequest(in, t, cred)
	if err != nil {
		return nil, err
	}
	x.upstream, x.secret, x.connection = t, secret, connectionOf(cred)
	if x.tunnel != nil {
		x.tunnel.went(cred)
	}
	return out, nil
}

// checkOwner refuses a credential of another connection than the request's, and one without a secret.
func (x *exchange) checkOwner(cred authflow.Credential, secret string) error {
	if cred.Slot.Integration == x.route.Integration && (cred.Slot.Org == x.org || cred.Slot.Org == tokenstore.Global) && secret != "" {
		return nil
	}
	x.proxy.log.LogAttrs(x.r.Context(), slog.LevelError, "a credential of another connection was refused",
		slog.String("wanted", x.slot().String()), slog.String("got", cred.Slot.String()))
	return fail(codeUnreadable, "")
}

// connectionOf says whose credential it is, as X-Bifrost-Connection does.
func connectionOf(cred authflow.Credential) string {
	if cred.Slot.Org == tokenstore.Global {
		return "global"
	}
	return "org"
}

// prepareBody makes the body readable by several attempts and enforces the limit on one of unknown length.
func (x *exchange) prepareBody(in *http.Request) {
	if in.Body == nil {
		return
	}
	src := x.watchBody(in.Body)
	if x.route.MaxBody > 0 {
		src = http.MaxBytesReader(nil, io.NopCloser(src), x.route.MaxBody) // the transport reads it, and must not touch x.w
	}
	x.body = newReplayBody(src, in.ContentLength, x.route.ReplayBodyLimit)
}

// withoutTrailer returns res without trailers, announced or not: a body's end would still fill in those of the response that
// it came with, but not those of a copy.
func withoutTrailer(res *http.Response) *http.Response {
	if res == nil || res.ProtoMajor == 1 && len(res.TransferEncoding) == 0 {
		return res
	}
	bare := *res
	bare.Trailer = nil
	return &bare
}
