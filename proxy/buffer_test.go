package proxy

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStreamsOfEventsHoldSmallBuffers(t *testing.T) {
	p := &Proxy{}
	for contentType, size := range map[string]int{
		"":                                   bufferSize,
		"application/json":                   bufferSize,
		"text/event-streaming":               bufferSize,
		"text/event-stream":                  eventBufferSize,
		"Text/Event-Stream; charset=utf-8":   eventBufferSize,
		"text/event-stream ;charset=\"utf\"": eventBufferSize,
	} {
		x := newExchange(p)
		x.events = isEventStream(http.Header{"Content-Type": {contentType}})
		for range 3 {
			buf := x.rp.BufferPool.Get()
			require.Len(t, buf, size, contentType)
			x.rp.BufferPool.Put(buf)
		}
	}
	require.False(t, isEventStream(http.Header{}))
}
