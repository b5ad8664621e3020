package authflow

import (
	"crypto/sha256"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPageHeaders(t *testing.T) {
	w := httptest.NewRecorder()
	Page{Title: "A <title>", Body: template.HTML("<p>text</p>"), FormAction: []string{"https://idp.example"}}.Write(w, http.StatusTeapot)

	require.Equal(t, http.StatusTeapot, w.Code)
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, "no-referrer", w.Header().Get("Referrer-Policy"))
	require.Equal(t, "DENY", w.Header().Get("X-Frame-Options"))
	require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	policy := w.Header().Get("Content-Security-Policy")
	require.Contains(t, policy, "default-src 'none'")
	require.Contains(t, policy, "frame-ancestors 'none'")
	require.Contains(t, policy, "base-uri 'none'")
	require.Contains(t, policy, "form-action 'self' https://idp.example")
	require.NotContains(t, policy, "script-src", "no script was named, so default-src forbids all")
	require.NotContains(t, policy, "unsafe")
	require.Contains(t, w.Body.String(), "<title>A &lt;title&gt; · Bifrost</title>")
	require.Contains(t, w.Body.String(), "<p>text</p>")
}

// A browser hashes exactly what stands between the tags: one byte of escaping in between and pages have no style.
func TestPageStyleIsTheOneThePolicyAllows(t *testing.T) {
	w := httptest.NewRecorder()
	Page{Title: "t"}.Write(w, http.StatusOK)

	_, rest, found := strings.Cut(w.Body.String(), "<style>")
	require.True(t, found)
	style, _, found := strings.Cut(rest, "</style>")
	require.True(t, found)
	sum := sha256.Sum256([]byte(style))
	require.Contains(t, w.Header().Get("Content-Security-Policy"),
		"style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
}

func TestPageScriptIsOurOwnOrNone(t *testing.T) {
	w := httptest.NewRecorder()
	Page{Title: "t", Script: "/prefix/copy.js"}.Write(w, http.StatusOK)

	require.Contains(t, w.Header().Get("Content-Security-Policy"), "script-src 'self'")
	require.Contains(t, w.Body.String(), `<script src="/prefix/copy.js" defer></script>`)
}

func TestSeeOtherCarriesThePageHeaders(t *testing.T) {
	w := httptest.NewRecorder()
	SeeOther(w, "https://idp.example/authorize?x=y")

	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "https://idp.example/authorize?x=y", w.Header().Get("Location"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, "no-referrer", w.Header().Get("Referrer-Policy"))
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
	require.Empty(t, w.Body.String())
}
