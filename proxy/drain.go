package proxy

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// unread returns how much of the request's body has not been read: 0, a number, or -1 if that is unknown. A caller that still
// waits to be told to send its body (RFC 9110 section 10.1.1) may never send it.
func (x *exchange) unread() int64 {
	switch {
	case x.r.ContentLength == 0 || x.r.ProtoMajor != 1:
		return 0
	case x.body == nil:
		return -1
	}
	read, atEOF := x.body.progress()
	switch {
	case atEOF:
		return 0
	case read == 0 && x.callersHeader(x.r)["Expect"] != nil:
		return -1
	}
	return max(x.r.ContentLength-read, -1)
}

// keepOrClose decides, before the headers of an answer are written, what becomes of the caller's connection. A short rest of
// the body is read afterwards; if more may come, the connection ends with the answer, since a body left unread in full duplex
// mode cannot be told from the next request (golang/go#68560). Nor can it be read before an answer without a known length ends:
// the caller may wait for that end.
func (x *exchange) keepOrClose(lengthKnown bool) {
	if rest := x.unread(); rest < 0 || rest > maxDrain || rest > 0 && !lengthKnown {
		x.w.Header().Set("Connection", "close")
	}
}

// hurryBody bounds for how long a body that nobody wants may keep its answer and its connection waiting: net/http's server reads up to
// 256 KiB of it before it writes the answer, for as long as the caller likes. After the answer the server has deadlines of its own.
func (x *exchange) hurryBody() {
	if x.r.ProtoMajor == 1 && x.r.ContentLength != 0 {
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(drainTime)) // not supported outside of net/http's server
	}
}

// drain reads the short rest of a body that keepOrClose has left for later.
func (x *exchange) drain(rc *http.ResponseController) {
	if x.unread() == 0 {
		return
	}
	_ = rc.Flush() // the answer is complete: the caller need not wait for us
	if x.w.Header().Get("Connection") == "close" {
		// The server ends the answer, reads on and closes. It takes deadlines away that are set before.
		x.linger()
		time.AfterFunc(drainTime, func() { _ = rc.SetReadDeadline(past) }) // it may have ended by itself
		return
	}
	_ = rc.SetReadDeadline(time.Now().Add(drainTime)) // not supported outside of net/http's server
	if _, err := io.Copy(io.Discard, x.r.Body); err != nil {
		panic(http.ErrAbortHandler) // what follows on this connection is not known to be a request
	}
	_ = rc.SetReadDeadline(time.Time{})
}

// linger has the server wait for half a second between the end of the answer and that of the connection. To close it with bytes
// unread, or under a caller that still sends, is a reset, which destroys an answer that the caller has not read yet. By itself
// the server waits only if it knows that it has left something unread, which it does not while the transport reads too; to
// exceed http.MaxBytesReader's limit is the public way to tell it.
func (x *exchange) linger() {
	_, _ = http.MaxBytesReader(x.w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1)) // fails, as it shall
}
