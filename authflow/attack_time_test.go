package authflow_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// visitor is a browser in fake time, which needs no socket. It follows no redirect unasked.
type visitor struct {
	w    *world
	jar  http.CookieJar
	site http.Handler
}

func (w *world) visitor() *visitor {
	jar, _ := cookiejar.New(nil) // fails never
	return &visitor{w, jar, w.Handler()}
}

// open returns status, text and Location of a page of ours.
func (v *visitor) open(method, target string) (status int, page, location string) {
	v.w.Helper()
	r := httptest.NewRequest(method, target, nil)
	for _, cookie := range v.jar.Cookies(r.URL) {
		r.AddCookie(cookie)
	}
	rec := httptest.NewRecorder()
	v.site.ServeHTTP(rec, r)
	got := rec.Result()
	v.jar.SetCookies(r.URL, got.Cookies())
	text, err := io.ReadAll(got.Body)
	require.NoError(v.w, err)
	return got.StatusCode, string(text), got.Header.Get("Location")
}

// consent goes from a link to the callback's URL.
func (v *visitor) consent(link string) string {
	v.w.Helper()
	status, page, location := v.open(http.MethodPost, link)
	require.Equal(v.w, http.StatusSeeOther, status, page)
	callback, err := v.w.provider.Visit(location)
	require.NoError(v.w, err)
	return callback.String()
}

// The ten minutes of a consent are ours to count, whatever the browser's clock says; who comes too late starts again from the same
// link. A link's own end is for beginning, not for ending a consent.
func TestC26ASlowConsentEndsAtTenMinutesOfOurs(t *testing.T) {
	inWorld(t, settings{provider: authflowtest.Config{CodeLifetime: time.Hour}}, func(t *testing.T, w *world) {
		link, err := w.ConnectLink(t.Context(), slot("acme"), "ops", time.Hour)
		require.NoError(t, err)
		v := w.visitor()
		slow := v.consent(link.URL)
		header := http.Header{}
		for _, cookie := range v.jar.Cookies(httptest.NewRequest(http.MethodGet, slow, nil).URL) {
			header.Add("Cookie", cookie.String())
		}
		pass(10*time.Minute + time.Second)
		require.Empty(t, v.jar.Cookies(httptest.NewRequest(http.MethodGet, slow, nil).URL), "a browser whose clock is ours")
		for _, late := range []http.Header{header, {}} {
			r := httptest.NewRequest(http.MethodGet, slow, nil)
			r.Header = late
			r.Header.Set("Date", time.Now().Add(-time.Hour).Format(http.TimeFormat)) // nobody looks
			rec := httptest.NewRecorder()
			v.site.ServeHTTP(rec, r)
			require.Equal(t, http.StatusBadRequest, rec.Code)
			require.Contains(t, rec.Body.String(), "Open")
		}
		require.Zero(t, w.provider.Count(""))
		require.Equal(t, authflow.NotConnected, w.status("acme").Status)
		require.Zero(t, w.status("acme").PendingSince, "nor is it said to be running still")

		onTime := v.consent(link.URL)
		pass(10*time.Minute - time.Second)
		status, page, _ := v.open(http.MethodGet, onTime)
		require.Equal(t, http.StatusSeeOther, status, page)
		require.Equal(t, authflow.Active, w.status("acme").Status)

		brief, err := w.ConnectLink(t.Context(), slot("globex"), "ops", time.Minute)
		require.NoError(t, err)
		begun := v.consent(brief.URL)
		pass(9 * time.Minute)
		status, page, _ = v.open(http.MethodPost, brief.URL)
		require.Equal(t, http.StatusForbidden, status)
		require.Contains(t, page, "Ask the person who sent it for a new one.")
		status, page, _ = v.open(http.MethodGet, begun)
		require.Equal(t, http.StatusSeeOther, status, page)
		require.Equal(t, 2, w.provider.Count(""))
	})
}

// The store goes while the code is being exchanged and stays away: within 10 s the page says so, and what may have been stored after
// all is not revoked.
func TestC25AStoreThatStaysAwayIsToldInTenSeconds(t *testing.T) {
	inWorld(t, settings{}, func(t *testing.T, w *world) {
		w.connect("acme")
		old := w.status("acme")
		link, err := w.ConnectLink(t.Context(), slot("acme"), "ops", 0)
		require.NoError(t, err)
		v := w.visitor()
		callback := v.consent(link.URL)
		w.provider.Misbehave(authflowtest.Behaviour{Rewrite: func(*authflowtest.Answer) { w.store.readOnly.Store(true) }})
		began := time.Now()
		status, page, location := v.open(http.MethodGet, callback)
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Contains(t, page, "The connection could not be stored")
		require.Empty(t, location)
		require.WithinDuration(t, began.Add(10*time.Second), time.Now(), time.Second)
		require.Equal(t, 1, w.provider.Count("authorization_code"))
		require.Empty(t, w.provider.Revocations())

		w.store.readOnly.Store(false)
		require.Equal(t, old.ConnectedAt, w.status("acme").ConnectedAt)
		status, _, _ = v.open(http.MethodGet, callback)
		require.Equal(t, http.StatusBadRequest, status)
		status, page, _ = v.open(http.MethodGet, v.consent(link.URL))
		require.Equal(t, http.StatusSeeOther, status, "the link connects: %s", page)
		require.False(t, strings.Contains(w.logs.String(), "CANARY"))
	})
}
