package proxy

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	maxRequestID   = 128
	maxHeaderNames = 100             // each costs a look-up in the header policy
	maxDrain       = 256 << 10       // of a body that the upstream did not wait for
	drainTime      = 5 * time.Second // for it to arrive
)

// exchange is one request on its way. It is httputil.ReverseProxy's transport and both its hooks, so that what is known of the
// request needs no context and no error travels in one. Exchanges are pooled: nothing that outlives ServeHTTP may point to one.
type exchange struct {
	proxy *Proxy
	rp    httputil.ReverseProxy
	state
}

// state is what differs from request to request.
type state struct {
	event
	w        http.ResponseWriter
	r        *http.Request // its headers and URL are away while httputil has it: see serve
	header   http.Header   // those headers; nil: httputil has them
	idValues []string      // the request id, ready as a header

	target  rawTarget
	api     bool   // the path is the proxy's own: see giveToken
	route   *route // that the path or the Host leads to, or whose token is asked for
	rest    string // the raw path after the route
	public  string // the proxy's own origin in links; empty: rooted paths
	prefix  string // and what stands there for the upstream's base path; empty where the Host chose the route
	caller  *caller
	org     tokenstore.Org
	entered bool // it is counted as one under way
	held    held

	asksUpgrade bool    // to WebSocket, which is the only protocol that gets so far
	websocket   bool    // and may have it
	tunnel      *tunnel // nil: it asks for none

	body     *replayBody // nil: there is none
	bodyIdle *idle       // watches its reading; nil: nobody does
	upstream *target     // the one that the request went to last
	secret   string      // the credential that it went with
	whole    bool        // the answer was passed on to its end
	events   bool        // the answer is a stream of events
}

// newExchange makes an exchange for p's pool.
func newExchange(p *Proxy) *exchange {
	x := &exchange{proxy: p}
	x.rp = httputil.ReverseProxy{
		Rewrite:        func(*httputil.ProxyRequest) {}, // RoundTrip does it: only there is the upstream known
		Transport:      x,
		BufferPool:     x,
		ErrorLog:       p.errorLog,
		ModifyResponse: x.modifyResponse,
		ErrorHandler:   x.handleError,
	}
	return x
}

func (x *exchange) begin(w http.ResponseWriter, r *http.Request) {
	x.state = state{w: w, r: r}
	x.began = time.Now()
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && ids[0] != "" && len(ids[0]) <= maxRequestID && wordBytes(ids[0]) {
		x.id, x.idValues = ids[0], ids
	} else {
		x.id = newRequestID()
		x.idValues = []string{x.id}
	}
	x.proxy.metrics.inFlight.Inc()
}

// newRequestID returns 128 random bits as rand.Text would write them. They are no secret, so that the runtime's own generator, which
// needs no system call and no lock, is good enough; nobody can guess those of others by it.
func newRequestID() string {
	const alphabet, half = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 13
	var id [2 * half]byte
	bits := rand.Uint64()
	for i := range id {
		if i == half {
			bits = rand.Uint64()
		}
		id[i] = alphabet[bits%32]
		bits /= 32
	}
	return string(id[:])
}

// end reports, and gives the exchange back.
func (x *exchange) end() {
	x.leave()
	if x.byUpstream && !x.whole && x.tunnel == nil && x.r.Context().Err() != nil {
		x.code = codeClientGone // in the middle of the answer
	}
	x.report()
	if x.tunnel != nil {
		x.endTunnel()
	}
	x.state = state{}
	x.proxy.exchanges.Put(x)
}

// admit decides whether the request may go on: target, route, caller, org, permission, size, limits, in this order. It looks
// at nothing but the request, the configuration and, last, what others use.
func (x *exchange) admit() error {
	if err := x.enter(); err != nil {
		return err
	}
	if err := x.gate(); err != nil {
		return err
	}
	if err := x.locate(); err != nil {
		return err
	}
	if err := x.permit(); err != nil {
		return err
	}
	x.settleUpgrade()
	if err := x.limit(); err != nil || !x.websocket {
		return err
	}
	return x.reserve()
}

// gate refuses what has two readings, or none.
func (x *exchange) gate() error {
	p, r := x.proxy, x.r
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return fail(codeMethod, "CONNECT and TRACE are never taken.")
	}
	if len(r.Header) > maxHeaderNames {
		return fail(codeBadRequest, "The request has more than 100 different headers.")
	}
	var ok bool
	if x.target, ok = parseTarget(r.RequestURI); !ok {
		return fail(codeBadRequest, "")
	}
	// Over HTTP/2 an absolute form may name another host than the authority does.
	if form := x.target.form; form != "" && (form != r.Host || !p.ourHost(form) && !calledAddress(r, form)) {
		return fail(codeBadRequest, "")
	}
	if r.ProtoMajor > 1 && (!plainAuthority(r.Host) || !trueLength(r)) {
		return fail(codeBadRequest, "The authority or the content-length is malformed.")
	}
	if x.asksUpgrade, ok = upgrade(r); !ok {
		return fail(codeBadRequest, "The only protocol to upgrade to is websocket.")
	}
	return nil
}

// locate finds the route and the caller. Below /_bifrost nothing is told to whom nobody knows.
func (x *exchange) locate() error {
	found := x.findRoute()
	if !found && !x.api {
		return fail(codeUnknownRoute, "")
	}
	if err := x.identify(); err != nil {
		return err
	}
	if !found {
		return fail(codeUnknownRoute, "")
	}
	return nil
}

// permit says whether the caller may do this for the org.
func (x *exchange) permit() error {
	r := x.r
	if !x.caller.uses(x.route.Integration) || x.api && !x.readable() {
		return fail(codeForbidden, "") // before anything is told of the integration
	}
	if !slices.Contains(x.methods(), r.Method) {
		return fail(codeMethod, "")
	}
	var err error
	if x.org, err = orgOf(r.Header, x.caller); err != nil {
		return err
	}
	if !x.caller.may(x.org, r.Method, x.rest) || !x.route.serves(x.org) || !x.api && !x.route.allows(r.Method, x.rest) {
		return fail(codeForbidden, "")
	}
	if x.route.MaxBody > 0 && r.ContentLength > x.route.MaxBody {
		return fail(codeBodyTooLarge, "")
	}
	return nil
}

// settleUpgrade lets a handshake be one, or makes it a plain request. It has no body (RFC 6455 section 4.1): what follows one is the
// tunnel's.
func (x *exchange) settleUpgrade() {
	r := x.r
	x.websocket = x.asksUpgrade && !x.api && x.route.WebSocket &&
		r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor == 1 && r.ContentLength == 0
	if x.asksUpgrade && !x.websocket {
		r.Header.Del("Upgrade")
	}
}

// findRoute matches the Host first, for the integrations that are reached by theirs, then the path. What is below /_bifrost is
// the proxy's own.
func (x *exchange) findRoute() bool {
	if rt := x.proxy.hosts.match(x.r.Host); rt != nil {
		x.route, x.rest = rt, x.target.path
		return true
	}
	if rest, ok := strings.CutPrefix(x.target.path, reserved); ok && (rest == "" || rest[0] == '/') {
		x.api, x.route = true, x.proxy.named(rest)
		return x.route != nil
	}
	rt := x.proxy.prefixes.match(x.target.path)
	if rt == nil {
		return false
	}
	x.route, x.rest = rt, x.target.path[len(rt.Prefix):]
	x.public, x.prefix = x.proxy.publicURL, rt.Prefix
	return true
}

// identify says who calls. Where nobody needs a key, a loopback listener still refuses what a foreign web page sends: a page
// must not reach tokens through its visitor's own machine.
func (x *exchange) identify() error {
	p := x.proxy
	if p.guarded {
		if x.caller = p.callers.of(x.r, x.began); x.caller == nil {
			return fail(codeUnauthenticated, "")
		}
		return nil
	}
	if p.open && (!p.ourHost(x.r.Host) || slices.Contains(x.r.Header["Sec-Fetch-Site"], "cross-site")) {
		return fail(codeForbidden, "")
	}
	return nil
}

// forward hands the request to httputil.
func (x *exchange) forward() {
	if x.tunnel != nil {
		x.forwardTunnel()
		return
	}
	if x.r.ProtoMajor != 1 {
		x.forwardStream()
		return
	}
	if x.r.ContentLength == 0 {
		x.serve(x.w)
		return
	}
	// Otherwise net/http reads the rest of the body before it writes the headers of an answer that came early, while the
	// transport still reads it too, and answers are cut short (golang/go#40747).
	rc := http.NewResponseController(x.w)
	_ = rc.EnableFullDuplex() // not supported outside of net/http's server, where it is not needed
	body, whole := x.r.Body, false
	defer func() {
		x.bodyIdle.stop()
		if !whole { // net/http would go on reading before it closes the connection, for as long as the caller likes
			_ = rc.SetReadDeadline(past) // where there is none, nothing is read on
			_ = body.Close()             // the connection ends with it
		}
	}()
	x.r.Body = io.NopCloser(body) // httputil's Close would wait for the caller's next bytes before the answer goes out
	x.serve(x.w)
	x.bodyIdle.stop() // before drain has a deadline of its own
	x.drain(rc)
	whole = true
}

// modifyResponse is httputil's hook on the way back. Our own headers are set here and not before, or an informational answer
// could take them away.
func (x *exchange) modifyResponse(res *http.Response) error {
	if res.StatusCode < 100 {
		return fail(codeUnreachable, "The upstream's answer has no valid status.") // net/http reads such an answer, and panics on writing it
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.switchProtocols(res)
	}
	x.bodyIdle.stop()
	x.status, x.byUpstream = res.StatusCode, true
	x.heed(res)
	if _, typed := res.Header["Content-Type"]; !typed {
		x.w.Header()["Content-Type"] = nil // else net/http would guess one from the body
	}
	x.events = isEventStream(res.Header)
	filterResponse(res.Header)
	x.rewriteLinks(res.Header)
	x.setOwnHeaders(x.w.Header())
	rewritten := x.rewriteBody(res)
	x.giveHeader(res)
	x.keepOrClose(res.ContentLength >= 0 && !rewritten)
	return nil
}

func (x *exchange) handleError(_ http.ResponseWriter, _ *http.Request, err error) {
	if x.tunnel.hijacked() { // the 101 could not be written: there is nobody to answer
		x.failed(&failure{code: codeClientGone, cause: err})
		return
	}
	x.keepOrClose(true)
	x.answer(failureOf(x.r.Context(), err))
}
