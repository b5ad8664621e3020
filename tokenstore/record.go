package tokenstore

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// Record is everything known of one connection. Its status is computed from it and stored nowhere. A Record contains
// secrets: never print or log one.
type Record struct {
	Grant      GrantID // random, new with every consent
	Generation int64   // counts refreshes within the grant, from 1
	Revision   int64   // counts writes of the Slot; set by the store
	Write      string  // random per Save attempt, set by the caller: tells whether a write whose answer was lost is ours

	Token  Token
	Scopes []string          // granted, not requested
	Extra  map[string]string // named values captured from the token response or the callback

	Account string // fingerprint of who consented; empty if unknown
	Client  string // fingerprint of the client id and token URL that the grant was made with

	Connected   time.Time
	ConnectedBy string
	Refreshed   time.Time // when the present access token was received
	Used        time.Time // last use by a request, exact to about an hour
	Forced      time.Time // when the last refresh caused by an upstream's 401 was stored
	Due         time.Time // when the sweep should look at this connection next; zero: never

	// Suspect says that the record comes from a copy of a store: its refresh token may have been used since. One that must not
	// be used twice is not POSTed without an operator's word. A refresh clears it.
	Suspect bool
	Fence   int64 // of the lease under which the present token was received; 0: of a consent, or unknown

	Failure *Failure // of the last attempt; nil after a success
	Intent  *Intent  // a refresh POST that may be on its way

	// later holds the fields, at the top level, that a later release wrote and this one does not know. It goes along when a record that was read is copied and
	// saved, so that releases can share a store. Never changed in place: copies share it.
	later map[string]json.RawMessage
}

// Version returns what Save compares for a record that was read.
func (r *Record) Version() Version { return Version{r.Grant, r.Generation, r.Revision} }

// Token is what an identity provider issued. It prints and marshals as [redacted].
type Token struct {
	Access  string
	Refresh string // empty: the connection cannot be renewed
	Type    string
	Expiry  time.Time // never zero in a stored record: an unknown lifetime has been replaced by the integration's default
}

const redacted = "[redacted]"

// Format prints [redacted] for every verb.
func (Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) } // fmt ignores write errors too

// LogValue logs [redacted].
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON writes "[redacted]": a Token is serialised by the store's codec alone.
func (Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Failure tells of the last attempt to refresh. It holds no secret and no provider text.
type Failure struct {
	Code     string    // a standard OAuth error code, or "other"
	Text     string    // in our words
	At       time.Time // when it happened
	Attempts int       // consecutive failures, this one included
	RetryAt  time.Time // no replica tries earlier, except as the back-off rules allow; zero when Dead
	Mandated bool      // RetryAt comes from the provider's Retry-After: nobody but an operator tries earlier
	Dead     bool      // a definite refusal of this grant: only a new consent helps
}

// Intent says that the holder of a lease is about to POST the refresh token of this generation.
type Intent struct {
	Holder   string    // the lease's owner
	Fence    int64     // the lease's fence
	Began    time.Time // when it was written
	Deadline time.Time // the POST has certainly ended by then
}
