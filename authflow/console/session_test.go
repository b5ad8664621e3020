package console_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const signInForm = `action="/integrations/sign-in"`

func TestTheScreenAsksToSignIn(t *testing.T) {
	s := newSite(t)
	w := s.get("/integrations?q=acme")
	require.Contains(t, w.Body.String(), signInForm)
	require.NotContains(t, w.Body.String(), "Microsoft_Graph")

	require.Equal(t, http.StatusUnauthorized, s.post("/integrations/Microsoft_Graph/disconnect", "org", "acme").Code)
	require.Contains(t, s.get("/integrations/Microsoft_Graph/disconnect?org=acme").Body.String(), signInForm)

	w = s.post("/integrations/sign-in", "token", " "+operatorToken+"\n", "view", "q=acme&evil=//evil.example")
	require.Equal(t, http.StatusSeeOther, w.Code)
	require.Equal(t, "/integrations?q=acme", w.Header().Get("Location"), "back to what was asked for, and nowhere else")
	require.Contains(t, s.get("/integrations").Body.String(), "Microsoft_Graph")
}

func TestAWrongTokenIsRefused(t *testing.T) {
	s := newSite(t)
	for _, wrong := range []string{"", "CANARY-wrong", operatorToken + "x"} {
		w := s.post("/integrations/sign-in", "token", wrong)
		require.Equal(t, http.StatusUnauthorized, w.Code)
		require.Contains(t, w.Body.String(), signInForm)
		require.Contains(t, w.Body.String(), "not a valid operator token")
	}
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
	require.Empty(t, s.shelf.values)
}

func TestAnOperatorWithoutATokenCannotSignIn(t *testing.T) {
	s := newSite(t)
	s.token = "" // its secret file is gone
	require.Equal(t, http.StatusUnauthorized, s.post("/integrations/sign-in", "token", "").Code)
	require.Equal(t, http.StatusUnauthorized, s.call("", http.MethodGet, "/integrations", "").Code)
	require.Equal(t, http.StatusUnauthorized, s.call(" ", http.MethodGet, "/integrations", "").Code)
}

func TestTheSessionCookie(t *testing.T) {
	cookieOf := func(w *httptest.ResponseRecorder, name string) *http.Cookie {
		for _, cookie := range w.Result().Cookies() {
			if cookie.Name == name {
				return cookie
			}
		}
		return nil
	}
	s := newSite(t)
	cookie := cookieOf(s.post("/integrations/sign-in", "token", operatorToken), "__Host-bifrost-session")
	require.NotNil(t, cookie)
	require.True(t, cookie.Secure)
	require.True(t, cookie.HttpOnly)
	require.Equal(t, "/", cookie.Path)
	require.Empty(t, cookie.Domain)
	require.Equal(t, http.SameSiteLaxMode, cookie.SameSite)
	require.Equal(t, 8*60*60, cookie.MaxAge)
	require.GreaterOrEqual(t, len(cookie.Value), 26)

	ended := cookieOf(s.post("/integrations/sign-out"), "__Host-bifrost-session")
	require.NotNil(t, ended)
	require.Negative(t, ended.MaxAge)
	require.True(t, ended.Secure, "browsers delete a cookie only under its own attributes")

	plain := newSite(t, func(cfg *console.Config) { cfg.PublicURL = "http://127.0.0.1:8081" })
	cookie = cookieOf(plain.post("/integrations/sign-in", "token", operatorToken), "bifrost-session")
	require.NotNil(t, cookie, "browsers refuse the prefix on plain http")
	require.False(t, cookie.Secure)
}

func TestASignInNeverKeepsTheBrowsersOwnID(t *testing.T) {
	s := newSite(t)
	s.cookies["__Host-bifrost-session"] = "chosen-by-someone-else"
	s.signIn()
	require.NotEqual(t, "chosen-by-someone-else", s.cookies["__Host-bifrost-session"])
}

func TestSigningOutEndsTheSession(t *testing.T) {
	s := newSite(t).signIn()
	kept := s.cookies["__Host-bifrost-session"]
	require.Equal(t, http.StatusSeeOther, s.post("/integrations/sign-out").Code)
	require.Empty(t, s.shelf.values)

	s.cookies["__Host-bifrost-session"] = kept
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
}

func TestASessionEndsWhenItsTokenChanges(t *testing.T) {
	s := newSite(t).signIn()
	s.token = "CANARY-renewed-token"
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
	s.token = ""
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
	s.token = otherToken
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
}

func TestASessionEndsWithItsOperator(t *testing.T) {
	s := newSite(t).signIn()
	without := newSite(t, func(cfg *console.Config) {
		cfg.Operators, cfg.Sessions = []console.Operator{{Name: "new", Token: cfg.Operators[0].Token}}, s.shelf
	})
	without.cookies = s.cookies
	require.Contains(t, without.get("/integrations").Body.String(), signInForm)
}

func TestASessionIsGoodOnEveryReplica(t *testing.T) {
	s := newSite(t).signIn()
	other := newSite(t, func(cfg *console.Config) { cfg.Sessions = s.shelf })
	other.cookies = s.cookies
	require.Contains(t, other.get("/integrations").Body.String(), "Signed in as <strong>ops</strong>")
}

// On the store that keeps sessions in production.
func TestASessionIsKeptSealed(t *testing.T) {
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "k", Bytes: bytes.Repeat([]byte{7}, 32)})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "bifrost.db")
	store, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: keys})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })

	s := newSite(t, func(cfg *console.Config) { cfg.Sessions = store })
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
	s.cookies["__Host-bifrost-session"] = "not-a-session"
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
	s.signIn()
	require.Contains(t, s.get("/integrations").Body.String(), "Signed in as <strong>ops</strong>")

	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(kept), s.cookies["__Host-bifrost-session"])
	require.NotContains(t, string(kept), "CANARY")

	require.Equal(t, http.StatusSeeOther, s.post("/integrations/sign-out").Code)
	require.Contains(t, s.get("/integrations").Body.String(), signInForm)
}

func TestWithoutTheShelfNobodyIsSignedIn(t *testing.T) {
	s := newSite(t).signIn()
	s.shelf.err = tokenstore.ErrUnavailable
	w := s.get("/integrations")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
	require.NotContains(t, w.Body.String(), "Microsoft_Graph")
	require.Equal(t, http.StatusServiceUnavailable, s.post("/integrations/sign-in", "token", operatorToken).Code)
}

func TestGuessingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		refused := 0
		for range 300 {
			switch s.post("/integrations/sign-in", "token", "CANARY-guess").Code {
			case http.StatusUnauthorized:
				refused++
			case http.StatusTooManyRequests:
			default:
				t.Fatal("neither refused nor bounded")
			}
		}
		require.Equal(t, 100, refused)
		w := s.post("/integrations/sign-in", "token", "CANARY-guess")
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.NotEmpty(t, w.Header().Get("Retry-After"))
		require.Equal(t, http.StatusOK, s.call(operatorToken, http.MethodGet, "/integrations", "").Code, "no stranger keeps the operators out")
		s.signIn()

		time.Sleep(time.Minute) // of the bubble
		for range 100 {
			require.Equal(t, http.StatusUnauthorized, s.call("CANARY-guess", http.MethodGet, "/integrations", "").Code)
		}
		requireProblem(t, s.call("CANARY-guess", http.MethodGet, "/integrations", ""), http.StatusTooManyRequests, "rate_limited")
		require.Equal(t, http.StatusOK, s.get("/integrations").Code, "who is signed in stays so")

		time.Sleep(time.Second)
		require.Equal(t, http.StatusOK, s.call(operatorToken, http.MethodGet, "/integrations", "").Code)
	})
}

func TestEveryActionLeavesOneLine(t *testing.T) {
	s := newSite(t).signIn()
	s.broker.disconnect = func(tokenstore.Slot, string) error { return nil }
	s.log.Reset()
	s.post("/integrations/Microsoft_Graph/disconnect", "org", "acme")
	require.Equal(t, 1, strings.Count(s.log.String(), "\n"))
	for _, want := range []string{`"action":"disconnect"`, `"operator":"ops"`, `"integration":"Microsoft_Graph"`, `"org":"acme"`, `"outcome":"ok"`} {
		require.Contains(t, s.log.String(), want)
	}
}
