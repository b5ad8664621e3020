package authflow

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

func TestNoMethodPOSTsTwiceWhateverTheAnswer(t *testing.T) {
	for name, post := range everyPost {
		for fault, b := range map[string]authflowtest.Behaviour{
			"400": authflowtest.OAuthError(400, "invalid_request"), "401": authflowtest.OAuthError(401, "invalid_client"),
			"429": authflowtest.Status(429, "0"), "503": authflowtest.Status(503, "0"), "dropped": authflowtest.DropAfter(),
			"301": authflowtest.Redirect(301, "/elsewhere"), "307": authflowtest.Redirect(307, "/elsewhere"),
			"308": authflowtest.Redirect(308, "/token"), "cut": authflowtest.CutBody(),
		} {
			t.Run(name+" "+fault, func(t *testing.T) {
				p := authflowtest.New(t, authflowtest.Config{})
				in, ep := integrationAt(p)
				p.MisbehaveAlways(b)
				r := post(t.Context(), t, newTokenEndpoint(nil), p, in, ep)
				require.NotEqual(t, granted, r.class)
				require.Equal(t, 1, p.Count(""))
				require.Empty(t, p.Strays(), "a redirect was followed")
			})
		}
	}
}

func TestASecondRoundTripIsRefused(t *testing.T) {
	p := authflowtest.NewProvider(authflowtest.Config{})
	once := &onePost{transport: p.Transport()}
	for _, want := range []error{errAnswerTaken, errSecondPost} {
		req := httptest.NewRequest(http.MethodPost, p.TokenURL, strings.NewReader("grant_type=x"))
		req.Header.Set("Content-Type", formType)
		_, err := once.RoundTrip(req)
		require.ErrorIs(t, err, want)
	}
	require.Equal(t, 1, p.Count(""))
}

// rawServer answers the first request of each connection and, where answers is 1, closes the connection upon the second
// without an answer, as a server does whose keep-alive has run out. It returns its URL and the number of requests it read.
func rawServer(t *testing.T, answers int) (string, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	requests := new(atomic.Int32)
	serve := func(c net.Conn) {
		defer c.Close()
		br := bufio.NewReader(c)
		for i := 0; ; i++ {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			requests.Add(1)
			if i >= answers {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"access_token\":\"a\"}")
		}
	}
	go func() { // it ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c) // it ends with the connection, which the client closes
		}
	}()
	return "http://" + l.Addr().String(), requests
}

// net/http sends a request again by itself when a kept connection turns out dead, if it can have the body again. A refresh
// token sent twice may cost the grant.
func TestADeadKeepAliveConnectionIsNoReasonToPOSTAgain(t *testing.T) {
	base, requests := rawServer(t, 1)
	in := &Integration{ClientID: "c"}
	transport := newTokenTransport()
	defer transport.CloseIdleConnections()
	te := newTokenEndpoint(transport)
	ep := Endpoints{TokenURL: base}

	require.Equal(t, granted, te.refresh(t.Context(), in, ep, "rt-1").class)
	r := te.refresh(t.Context(), in, ep, "rt-2")
	require.Equal(t, ambiguous, r.class)
	require.Equal(t, "token endpoint: the connection ended before the answer", r.text)
	require.EqualValues(t, 2, requests.Load())
}

func TestRequestsCannotBeReplayed(t *testing.T) {
	var sent *http.Request
	transport := roundTripper(func(r *http.Request) (*http.Response, error) { sent = r; return nil, io.EOF })
	newTokenEndpoint(transport).refresh(t.Context(), &Integration{ClientID: "c"}, Endpoints{TokenURL: "https://idp.test"}, "rt")
	require.NotNil(t, sent)
	require.Nil(t, sent.GetBody)
	require.Positive(t, sent.ContentLength)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTheTimeoutDependsOnTheRefreshClass(t *testing.T) {
	for _, c := range []struct {
		refresh    RefreshClass
		configured time.Duration
		want       time.Duration
	}{
		{Reusable, 0, 15 * time.Second}, {Rotating, 0, 10 * time.Second}, {OneTime, 0, 30 * time.Second}, {OneTime, 7 * time.Second, 7 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := authflowtest.InMemory(t, authflowtest.Config{})
			in, ep := integrationAt(p)
			in.Refresh, in.TokenTimeout = c.refresh, c.configured
			p.Misbehave(authflowtest.SlowAfter(time.Minute))
			began := time.Now()
			r := newTokenEndpoint(p.Transport()).refresh(t.Context(), in, ep, p.Issue("alice").Refresh)
			require.Equal(t, c.want, time.Since(began))
			require.Equal(t, ambiguous, r.class)
			require.Equal(t, "token endpoint: no answer came in time", r.text)
		})
	}
}

func TestWhatWasNeverSentIsTransient(t *testing.T) {
	in := &Integration{ClientID: "c", Refresh: OneTime, TokenTimeout: time.Second}
	refresh := func(te *tokenEndpoint, tokenURL string) reply {
		return te.refresh(t.Context(), in, Endpoints{TokenURL: tokenURL}, "CANARY-rt")
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never speaks TLS
	require.NoError(t, err)
	defer silent.Close()
	untrusted := httptest.NewUnstartedServer(nil)
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	resolver := roundTripper(func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Name: "CANARY-host", IsNotFound: true}}
	})

	for name, c := range map[string]struct {
		r    reply
		text string
	}{
		"connection refused":   {refresh(newTokenEndpoint(nil), "http://"+closed.Addr().String()), "the endpoint refuses connections"},
		"no TLS handshake":     {refresh(newTokenEndpoint(nil), "https://"+silent.Addr().String()), "the endpoint could not be reached in time"},
		"an unknown authority": {refresh(newTokenEndpoint(nil), untrusted.URL), "the endpoint's certificate cannot be verified"},
		"no such name":         {refresh(newTokenEndpoint(resolver), "https://idp.test"), "the endpoint's name cannot be resolved"},
		"no valid URL":         {refresh(newTokenEndpoint(nil), "https://idp.test/%zz?CANARY"), "the request could not be made"},
		"no refresh token": {
			newTokenEndpoint(nil).refresh(t.Context(), in, Endpoints{TokenURL: "https://idp.test"}, ""), "the request could not be made",
		},
	} {
		require.Equal(t, transient, c.r.class, name)
		require.Equal(t, "token endpoint: "+c.text, c.r.text, name)
		require.Equal(t, "other", c.r.code)
		require.Zero(t, c.r.status)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	srv.StartTLS()
	defer srv.Close()
	transport := newTokenTransport()
	transport.TLSClientConfig.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	r := newTokenEndpoint(transport).refresh(t.Context(), &Integration{ClientID: "c"}, Endpoints{TokenURL: srv.URL}, "rt")
	require.Equal(t, transient, r.class)
	require.Zero(t, r.status, "nothing was said over it")
}

// A transport may leave a goroutine behind that has not begun to write when the deadline ends the call. What is reported as
// never sent must then never be sent.
func TestABodyThatWasGivenUpIsNeverSentLater(t *testing.T) {
	var left io.Reader
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		left = r.Body
		return nil, context.DeadlineExceeded
	})
	r := newTokenEndpoint(transport).refresh(t.Context(), &Integration{ClientID: "c"}, Endpoints{TokenURL: "https://idp.test"}, "CANARY-rt")
	require.Equal(t, transient, r.class)
	body, err := io.ReadAll(left)
	require.ErrorIs(t, err, errRevoked)
	require.Empty(t, body)
}

func TestEnvironmentProxiesAreNotUsed(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	require.Nil(t, newTokenTransport().Proxy)
}

// A process may be stopped between the last look at its lease and the sending, for longer than the lease and the Intent last.
func TestAPostWhoseTimeIsOverIsNotSentAfterAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://idp.test/token", strings.NewReader("refresh_token=CANARY-rt"))
		require.NoError(t, err)
		read := make(chan error, 1)
		p := &onePost{transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Hour) // in fake time: the process stood still
			_, err := io.ReadAll(r.Body)
			read <- err
			return nil, cmp.Or(err, io.ErrUnexpectedEOF)
		})}
		_, _ = p.RoundTrip(req) // its error says nothing
		require.ErrorIs(t, <-read, errRevoked)
		require.Nil(t, p.answer)
		require.False(t, p.sent, "nothing of it has left the process")
	})
}

// A process may be stopped while the answer is on its way, until long after the POST's deadline. The answer lies in the socket
// when it wakes up, and the token in it exists nowhere else.
func TestAnAnswerThatCameWhileTheProcessStoodStillIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, wake := context.WithCancel(t.Context())
		defer wake()
		ctx := stopped{inner, time.Now().Add(time.Minute)}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://idp.test/token", strings.NewReader("refresh_token=CANARY-rt"))
		require.NoError(t, err)
		p := &onePost{transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			_, _ = io.ReadAll(r.Body) // it is sent in time
			time.Sleep(time.Hour)     // in fake time: the process stood still
			wake()
			synctest.Wait() // its timers come first
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(lastLook / 2):
				return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("{}"))}, nil
			}
		})}
		_, _ = p.RoundTrip(req) // its error says nothing
		require.NotNil(t, p.answer)
		require.True(t, p.answer.complete)
	})
}

// stopped is a context whose deadline passes unnoticed until the inner one ends.
type stopped struct {
	context.Context
	deadline time.Time
}

func (s stopped) Deadline() (time.Time, bool) { return s.deadline, true }

func (s stopped) Err() error {
	if s.Context.Err() != nil {
		return context.DeadlineExceeded
	}
	return nil
}
