package authflow

import (
	"net/http"
	"strings"
	"time"
)

// maxRetryAfter bounds what a provider can ask for: beyond it we rather ask again.
const maxRetryAfter = 10 * time.Minute

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3): seconds or a date. What is unusable or past is zero.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if header != "" && strings.Trim(header, "0123456789") == "" {
		return secondsOf(header)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// secondsOf converts digits of any number: a number too large to hold is the maximum, not an error.
func secondsOf(digits string) time.Duration {
	var d time.Duration
	for _, c := range []byte(digits) {
		d = d*10 + time.Duration(c-'0')*time.Second
		if d > maxRetryAfter {
			return maxRetryAfter
		}
	}
	return d
}
