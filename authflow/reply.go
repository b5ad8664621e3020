package authflow

import (
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// class is what a token endpoint's answer means for the connection.
type class int

const (
	granted        class = iota // a usable access token
	transient                   // passing: nothing was processed, or the provider says so; the connection is unchanged
	ambiguous                   // the outcome is unknown: the POST was written and no usable answer came
	dead                        // a definite refusal of this grant
	rejectedClient              // the provider refuses our client id or secret; no connection changes
)

// String returns the class as a metric's label value.
func (c class) String() string {
	return [...]string{"ok", "transient", "ambiguous", "invalid_grant", "rejected_client"}[c]
}

// reply is a token endpoint's answer, classified. It holds no provider text.
type reply struct {
	class      class
	code       string        // a standard OAuth error code, or "other"; empty when granted
	text       string        // one sentence in our words; empty when granted
	status     int           // of the HTTP answer; 0 if none came
	retryAfter time.Duration // from Retry-After, capped at 10 min; zero if there was none

	token    tokenstore.Token // Expiry zero: the answer said nothing usable of the lifetime; Refresh empty: none came
	scopes   []string         // nil: the answer named none (RFC 6749 section 5.1: as requested)
	extra    map[string]string
	account  string // fingerprint of who consented; empty if unknown
	received time.Time
	began    time.Time // when it was asked for

	// misidentified says in our words why the ID token is not one for the consent that it was asked for; empty: nothing is wrong.
	misidentified string
}
