package authflowtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"syscall"
)

// Client returns a client whose requests the Provider answers in memory, whatever their host. It follows no redirects.
func (p *Provider) Client() *http.Client {
	return &http.Client{
		Transport:     p.Transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Transport returns a RoundTripper that calls the Provider without a socket. It returns when the request's context ends, while
// the Provider goes on with what it was asked; SetDown and the Drop behaviours are errors, as on a network.
func (p *Provider) Transport() http.RoundTripper { return memory{p} }

type memory struct{ p *Provider }

// RoundTrip implements [http.RoundTripper].
func (m memory) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if m.p.isDown() {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	in, err := arrived(r)
	if err != nil {
		return nil, err
	}
	done := make(chan answered, 1)
	go func() { done <- serve(m.p, in) }() // it ends when the Provider has answered; see Provider.Close
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case a := <-done:
		return a.response(r)
	}
}

func (p *Provider) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// arrived is the request as a server sees it.
func arrived(r *http.Request) (*http.Request, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	in := r.Clone(r.Context())
	in.Body = io.NopCloser(bytes.NewReader(body))
	in.RequestURI = r.URL.RequestURI()
	in.RemoteAddr = "192.0.2.1:1234"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	return in, nil
}

type answered struct {
	recorder *httptest.ResponseRecorder
	cut      bool // the handler ended the connection
}

func serve(h http.Handler, r *http.Request) (a answered) {
	a.recorder = httptest.NewRecorder()
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			a.cut = true
		}
	}()
	h.ServeHTTP(a.recorder, r)
	return a
}

// response is what the client gets: nothing, or half a body, where the connection was cut.
func (a answered) response(r *http.Request) (*http.Response, error) {
	if a.cut && !a.recorder.Flushed {
		return nil, io.ErrUnexpectedEOF
	}
	res := a.recorder.Result()
	res.Request = r
	if a.cut {
		res.Body = io.NopCloser(io.MultiReader(res.Body, broken{}))
	}
	return res, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
