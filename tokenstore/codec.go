package tokenstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// wireVersion is the version of wireRecord that is written. A record of a higher version was written by a later release and
// is left alone.
const wireVersion = 1

// wireRecord is the plaintext of a sealed record. Grant, Generation and Revision are not in it: they stand beside the
// ciphertext, bound to it as associated data.
type wireRecord struct {
	V           int               `json:"v"`
	Write       string            `json:"write,omitempty"`
	Access      string            `json:"access,omitempty"`
	Refresh     string            `json:"refresh,omitempty"`
	Type        string            `json:"type,omitempty"`
	Expiry      time.Time         `json:"expiry,omitzero"`
	Scopes      []string          `json:"scopes,omitempty"`
	Extra       map[string]string `json:"extra,omitempty"`
	Account     string            `json:"account,omitempty"`
	Client      string            `json:"client,omitempty"`
	Connected   time.Time         `json:"connected,omitzero"`
	ConnectedBy string            `json:"connected_by,omitempty"`
	Refreshed   time.Time         `json:"refreshed,omitzero"`
	Used        time.Time         `json:"used,omitzero"`
	Forced      time.Time         `json:"forced,omitzero"`
	Due         time.Time         `json:"due,omitzero"`
	Suspect     bool              `json:"suspect,omitempty"`
	Fence       int64             `json:"fence,omitempty"`
	Failure     *Failure          `json:"failure,omitempty"`
	Intent      *Intent           `json:"intent,omitempty"`
}

// encodeRecord writes the plaintext of a record; its times are written in UTC.
func encodeRecord(r *Record) ([]byte, error) {
	w := wireRecord{
		V: wireVersion, Write: r.Write,
		Access: r.Token.Access, Refresh: r.Token.Refresh, Type: r.Token.Type, Expiry: r.Token.Expiry.UTC(),
		Scopes: r.Scopes, Extra: r.Extra, Account: r.Account, Client: r.Client,
		Connected: r.Connected.UTC(), ConnectedBy: r.ConnectedBy,
		Refreshed: r.Refreshed.UTC(), Used: r.Used.UTC(), Forced: r.Forced.UTC(), Due: r.Due.UTC(),
		Suspect: r.Suspect, Fence: r.Fence,
	}
	if f := r.Failure; f != nil {
		utc := *f
		utc.At, utc.RetryAt = f.At.UTC(), f.RetryAt.UTC()
		w.Failure = &utc
	}
	if i := r.Intent; i != nil {
		utc := *i
		utc.Began, utc.Deadline = i.Began.UTC(), i.Deadline.UTC()
		w.Intent = &utc
	}
	plain, err := json.Marshal(w)
	if err != nil {
		return nil, errors.New("the record has a time that cannot be written") // nothing else in it can fail
	}
	return plain, nil
}

// decodeRecord reads what encodeRecord wrote. Its errors contain nothing of the plaintext.
func decodeRecord(plain []byte, version Version) (*Record, error) {
	var w wireRecord
	if err := json.Unmarshal(plain, &w); err != nil {
		return nil, errors.New("its plaintext cannot be parsed") // json's errors quote the input
	}
	if w.V < 1 || w.V > wireVersion {
		return nil, fmt.Errorf("it has version %d, this release reads versions 1 to %d", w.V, wireVersion)
	}
	return &Record{
		Grant: version.Grant, Generation: version.Generation, Revision: version.Revision, Write: w.Write,
		Token:  Token{Access: w.Access, Refresh: w.Refresh, Type: w.Type, Expiry: w.Expiry},
		Scopes: w.Scopes, Extra: w.Extra, Account: w.Account, Client: w.Client,
		Connected: w.Connected, ConnectedBy: w.ConnectedBy, Refreshed: w.Refreshed, Used: w.Used, Forced: w.Forced, Due: w.Due,
		Suspect: w.Suspect, Fence: w.Fence, Failure: w.Failure, Intent: w.Intent,
	}, nil
}
