package authflow

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func rawURL(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// FuzzClassify: whatever a provider sends, a grant has a token that fits into a header and an expiry in reason, everything
// else has a sentence of ours and no token, only a listed code kills, and the same answer always means the same. Its corpus
// has what providers are known to send.
func FuzzClassify(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"CANARY","token_type":"Bearer","expires_in":3600,"refresh_token":"r","scope":"a b"}`,
		"\ufeff{\"access_token\":\"x\",\"expires_in\":\" 3600\"}trailing", `{"error":"invalid_grant","error_codes":[50196]}`,
		"access_token=a&expires_in=1e9&scope=a,b", `{"access_token":"a","Access_Token":"b"}`, `{"access_token":"a\r\n"}`, "<html>", "",
		`{"access_token":"x","id_token":"a.` + rawURL(`{"iss":"i","sub":"s"}`) + `.c"}`, `{"access_token":"x","expires_in":1e-9}`,
	} {
		for _, status := range []int{200, 302, 400, 429, 503} {
			f.Add(status, []byte(body), "7", true)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, after string, flag bool) {
		ended := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
		read := func(body []byte) reply {
			return classify(&tokenAnswer{
				status: status, header: http.Header{"Retry-After": {after}}, body: body, complete: true, began: ended, ended: ended,
			}, asking{once: flag, renewable: flag, anyType: flag})
		}
		r := read(slices.Clone(body))
		require.Equal(t, r, read(body))
		require.True(t, r.retryAfter >= 0 && r.retryAfter <= maxRetryAfter)
		if r.class == granted {
			require.Equal(t, 2, status/100)
			require.Regexp(t, `^[\x21-\x7e]+$`, r.token.Access)
			require.Regexp(t, `^[\x20-\x7e]*$`, r.token.Refresh)
			require.LessOrEqual(t, max(len(r.token.Access), len(r.token.Refresh)), maxToken)
			require.True(t, r.token.Expiry.IsZero() || r.token.Expiry.After(ended) && r.token.Expiry.Before(ended.Add(2*absurdLifetime)))
			require.Equal(t, r.token, read(restated(r.token, ended)).token, "what was understood is not understood again")
			return
		}
		require.Empty(t, r.token.Access+r.token.Refresh+r.token.Type+r.account)
		require.True(t, strings.HasPrefix(r.text, "token endpoint: HTTP "))
		require.Less(t, len(r.text), 200)
		require.True(t, utf8.ValidString(r.text))
		require.NotContains(t, r.text+r.code, "CANARY")
		_, listed := verdictOn(r.code)
		require.True(t, listed || r.code == "other")
		if r.class == dead {
			require.Contains(t, []string{"invalid_grant", "interaction_required", "consent_required"}, r.code)
			require.Contains(t, []int{2, 4}, status/100)
		}
	})
}

// restated is the plainest answer that says the same.
func restated(token tokenstore.Token, received time.Time) []byte {
	members := map[string]any{"access_token": token.Access, "refresh_token": token.Refresh, "token_type": token.Type}
	if !token.Expiry.IsZero() {
		members["expires_in"] = token.Expiry.Sub(received).Seconds()
	}
	body, _ := json.Marshal(members) // strings and a number always marshal
	return body
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "007": 7 * time.Second, "600": 10 * time.Minute,
		"601": 10 * time.Minute, "99999999999999999999999": 10 * time.Minute,
		"-1": 0, "1.5": 0, "7s": 0, "+7": 0, "soon": 0, "7, 8": 0,
		"Sun, 22 Nov 2026 12:00:30 GMT":  30 * time.Second,
		"Sunday, 22-Nov-26 12:00:30 GMT": 30 * time.Second,
		"Sun, 22 Nov 2026 11:00:00 GMT":  0,
		"Sun, 22 Nov 2027 12:00:00 GMT":  10 * time.Minute,
	} {
		require.Equal(t, want, retryAfter(header, now), header)
	}
}

// FuzzRetryAfter: whatever a provider asks for, the wait is between nothing and the longest.
func FuzzRetryAfter(f *testing.F) {
	for _, header := range []string{"", "7", "-1", "99999999999999999999", "Sun, 22 Nov 2026 12:00:30 GMT", "Mon, 01 Jan 0001 00:00:00 GMT"} {
		f.Add(header)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, header string) {
		got := retryAfter(header, now)
		require.GreaterOrEqual(t, got, time.Duration(0))
		require.LessOrEqual(t, got, maxRetryAfter)
		require.Equal(t, got, retryAfter(" "+header+"\t", now), "what is around it means nothing")
		require.Equal(t, got, retryAfter(strconv.Itoa(int(got.Seconds())), now), "whole seconds, and the same said in seconds")
		require.LessOrEqual(t, retryAfter(header, now.Add(time.Second)), got, "later is never longer")
	})
}
