package authflow

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNormalise(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want members
	}{
		"unknown members may repeat":  {`{"a":1,"a":2,"A":3,"access_token":"x"}`, members{access: "x"}},
		"numbers keep their digits":   {`{"access_token":"x","refresh_token":12345678901234567890123}`, members{access: "x", refresh: "12345678901234567890123"}},
		"booleans are no tokens":      {`{"access_token":"x","refresh_token":false}`, members{access: "x"}},
		"a refresh token has spaces":  {`{"access_token":"x","refresh_token":"a b"}`, members{access: "x", refresh: "a b"}},
		"another case is another key": {`{"ACCESS_TOKEN":"x","error":"e"}`, members{problem: "e"}},
		"escaped keys are keys":       {`{"access\u005ftoken":"x"}`, members{access: "x"}},
		"scopes by commas":            {`{"access_token":"x","scope":"a,b c,,a"}`, members{access: "x", scopes: []string{"a", "b", "c"}}},
		"scopes as an array":          {`{"access_token":"x","scope":["a","b c",7]}`, members{access: "x", scopes: []string{"a", "b", "c", "7"}}},
		"hostile scopes are left out": {`{"access_token":"x","scope":"a \u0000b \"c d\\e ü"}`, members{access: "x", scopes: []string{"a"}}},
		"an empty scope says nothing": {`{"access_token":"x","scope":""}`, members{access: "x"}},
		"no error":                    {`{"access_token":"x","error":null}`, members{access: "x"}},
		"an error that is no string":  {`{"error":true}`, members{problem: "other"}},
		"a nested token is not ours":  {`{"ok":true,"authed_user":{"access_token":"x"}}`, members{}},
		"a form":                      {"access_token=a%2Bb&scope=a+b&expires_in=3600", members{access: "a+b", scopes: []string{"a", "b"}, expiresIn: "3600"}},
		"a form with an error":        {"error=bad_refresh_token", members{problem: "bad_refresh_token"}},
	} {
		got, err := normalise([]byte(c.body), true)
		require.NoError(t, err, name)
		require.Equal(t, c.want, got, name)
	}
}

func TestNormaliseRefuses(t *testing.T) {
	long := strings.Repeat("a", maxToken+1)
	for name, body := range map[string]string{
		"nothing":                  "",
		"a page":                   "<html>access_token=x</html>",
		"a string":                 `"access_token=x"`,
		"a form twice":             "access_token=a&access_token=b",
		"a form in two cases":      "access_token=a&Access_token=b",
		"two cases, other first":   `{"Refresh_Token":"a","access_token":"x","refresh_token":"b"}`,
		"two expiries":             `{"access_token":"x","expires_in":1,"expires_in":2}`,
		"a Unicode case":           `{"access_token":"x","acceſs_token":"y"}`,
		"no end":                   `{"access_token":"x"`,
		"half a value":             `{"access_token":"x","refresh_token":"y`,
		"invalid UTF-8":            "{\"access_token\":\"x\xff\"}",
		"too long a token":         `{"access_token":"` + long + `"}`,
		"too long a refresh token": `{"access_token":"x","refresh_token":"` + long + `"}`,
		"a control in token_type":  `{"access_token":"x","token_type":"a\u0007"}`,
		"very deep nesting":        `{"a":` + strings.Repeat("[", 20000) + `}`,
	} {
		_, err := normalise([]byte(body), true)
		require.ErrorIs(t, err, errMalformed, name)
	}
}

// A wrong Content-Length, or a connection that is cut late, must not cost a rotated token that has arrived whole.
func TestABodyThatIsNotCompleteMayBeAWholeObject(t *testing.T) {
	m, err := normalise([]byte(`{"access_token":"x"}`), false)
	require.NoError(t, err)
	require.Equal(t, "x", m.access)
	_, err = normalise([]byte("scope=a&access_token=x"), false)
	require.ErrorIs(t, err, errMalformed, "who knows how long the token is")
}

func TestLifetime(t *testing.T) {
	for expiresIn, want := range map[string]time.Duration{
		"3600": time.Hour, " 3600 ": time.Hour, "3599.5": 3599500 * time.Millisecond, "3.6e3": time.Hour, "5": 5 * time.Second,
		"": 0, "0": 0, "-1": 0, "NaN": 0, "Inf": 0, "1e400": 0, "0x10": 0, "1_000": 0, "true": 0, "3600s": 0, "1e-12": 0,
		"99999999999999999999": 0,              // beyond int64, and beyond belief
		"3600000":              24 * time.Hour, // milliseconds
		"2592000":              30 * 24 * time.Hour,
	} {
		got, ok := lifetimeOf(expiresIn, true)
		require.Equal(t, want, got, expiresIn)
		require.Equal(t, want > 0, ok, expiresIn)
	}
	got, _ := lifetimeOf("5184000", false)
	require.Equal(t, 60*24*time.Hour, got, "a token that cannot be renewed keeps what it has")
}

func TestExpiryIsCountedFromTheMiddleOfTheRoundTrip(t *testing.T) {
	began := time.Now()
	r := classify(&tokenAnswer{
		status: 200, body: []byte(`{"access_token":"x","expires_in":5}`), complete: true, began: began, ended: began.Add(2 * time.Second),
	}, asking{})
	require.Equal(t, granted, r.class)
	require.True(t, began.Add(6*time.Second).Equal(r.token.Expiry))
	r = classify(&tokenAnswer{status: 200, body: []byte(`{"access_token":"x"}`), complete: true, began: began, ended: began}, asking{})
	require.True(t, r.token.Expiry.IsZero(), "unknown")
	require.Nil(t, r.scopes)
}

func TestAccountTellsAccountsApart(t *testing.T) {
	token := func(claims string) string {
		quoted, _ := json.Marshal("h." + rawURL(claims) + ".s") // a string always marshals
		return `{"access_token":"x","id_token":` + string(quoted) + `}`
	}
	account := func(body string) string {
		m, err := normalise([]byte(body), true)
		require.NoError(t, err)
		return m.account
	}
	seen := map[string]string{}
	for _, claims := range []string{
		`{"iss":"i","sub":"s"}`, `{"iss":"i","sub":"t"}`, `{"iss":"j","sub":"s"}`, `{"iss":"is","sub":""}`,
		`{"iss":"i","sub":"s","tid":"t","oid":"o"}`, `{"iss":"i","sub":"","tid":"to","oid":""}`, `{"iss":"i","tid":"o","oid":"t"}`,
	} {
		if a := account(token(claims)); a != "" {
			require.NotContains(t, seen, a, claims)
			seen[a] = claims
		}
	}
	require.Len(t, seen, 5, "two have no subject")
	require.Equal(t, account(token(`{"iss":"i","sub":"1","tid":"t","oid":"o"}`)), account(token(`{"iss":"i","sub":"2","tid":"t","oid":"o"}`)))
	for _, body := range []string{
		`{"access_token":"x"}`, `{"access_token":"x","id_token":"a.b"}`, `{"access_token":"x","id_token":"a.!.c"}`,
		token(`{"sub":"s"}`), token(`{"iss":7,"sub":"s"}`), token(`[]`),
	} {
		require.Empty(t, account(body), body)
	}
}

// Members that only name an account are no reason to lose a token: two of them name none.
func TestAnAccountThatIsNamedTwiceIsUnknown(t *testing.T) {
	for body, known := range map[string]bool{
		`{"access_token":"x","team":{"id":"T1"}}`:                           true,
		`{"access_token":"x","team":{"id":"T1"},"team":{"id":"T2"}}`:        false,
		`{"access_token":"x","team":{"id":"T1"},"Team":{"id":"T2"}}`:        true,
		`{"access_token":"x","id":"https://s/id/00Dx0000000BV7z/0"}`:        false,
		`{"access_token":"x","team":["T1"],"enterprise":7,"id":{"id":"7"}}`: false,
	} {
		m, err := normalise([]byte(body), true)
		require.NoError(t, err, body)
		require.Equal(t, "x", m.access)
		require.Equal(t, known, m.account != "", body)
	}
}
