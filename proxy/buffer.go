package proxy

import (
	"net/http"
	"strings"
	"sync"
)

const (
	bufferSize      = 32 << 10 // of one copy from upstream to caller
	eventBufferSize = 2 << 10  // of a stream of events, which holds it while it is silent
)

// buffers holds the copies' buffers of all routes, by size.
type buffers struct{ answers, events sync.Pool }

// Get implements httputil.BufferPool. httputil asks for the buffer when it has the answer's headers.
func (x *exchange) Get() []byte { return x.proxy.buffers.get(x.events) }

// Put implements httputil.BufferPool.
func (x *exchange) Put(buf []byte) { x.proxy.buffers.put(buf) }

func (b *buffers) get(events bool) []byte {
	if events {
		if buf, ok := b.events.Get().(*[eventBufferSize]byte); ok {
			return buf[:]
		}
		return make([]byte, eventBufferSize)
	}
	if buf, ok := b.answers.Get().(*[bufferSize]byte); ok {
		return buf[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) put(buf []byte) {
	if len(buf) == eventBufferSize {
		b.events.Put((*[eventBufferSize]byte)(buf))
		return
	}
	b.answers.Put((*[bufferSize]byte)(buf))
}

// isEventStream reports whether an answer is one that may be silent for hours.
func isEventStream(h http.Header) bool {
	values := h["Content-Type"]
	if len(values) == 0 || len(values[0]) < len(eventStream) || !strings.EqualFold(values[0][:len(eventStream)], eventStream) {
		return false
	}
	rest := values[0][len(eventStream):]
	return rest == "" || rest[0] == ';' || rest[0] == ' '
}

const eventStream = "text/event-stream"
