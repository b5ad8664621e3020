package tokenstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// wireVersion is the version of wireRecord that is written. A record of a higher version was written by a later release and
// is left alone: it gets a higher one only if an earlier release could do harm with it. A field that can be left out needs none, for
// releases keep the fields that they do not know.
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
	return appendLater(plain, r.later)
}

// wireNames are the names of wireRecord's fields.
var wireNames = func() (names []string) {
	for field := range reflect.TypeFor[wireRecord]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}()

// laterFields returns the fields of a plaintext that this release does not know, nil if there are none. A name that differs from
// one of ours in case only is one of ours: json reads it so.
func laterFields(plain []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(plain, &fields); err != nil {
		return nil, err
	}
	maps.DeleteFunc(fields, func(name string, _ json.RawMessage) bool {
		return slices.ContainsFunc(wireNames, func(ours string) bool { return strings.EqualFold(ours, name) })
	})
	if len(fields) == 0 {
		return nil, nil
	}
	return fields, nil
}

// appendLater puts fields into a JSON object that has others.
func appendLater(plain []byte, fields map[string]json.RawMessage) ([]byte, error) {
	if len(fields) == 0 {
		return plain, nil
	}
	more, err := json.Marshal(fields)
	if err != nil {
		return nil, errors.New("the record has fields of a later release that cannot be written")
	}
	return slices.Concat(plain[:len(plain)-1], []byte{','}, more[1:]), nil
}

// decodeRecord reads what encodeRecord wrote. Its errors contain nothing of the plaintext.
func decodeRecord(plain []byte, version Version) (*Record, error) {
	w, ours := decodeOurs(plain)
	var later map[string]json.RawMessage
	if !ours {
		w = wireRecord{}
		err := json.Unmarshal(plain, &w)
		if err == nil {
			later, err = laterFields(plain)
		}
		if err != nil {
			return nil, errors.New("its plaintext cannot be parsed") // json's errors quote the input
		}
	}
	if w.V < 1 || w.V > wireVersion {
		return nil, fmt.Errorf("it has version %d, this release reads versions 1 to %d", w.V, wireVersion)
	}
	if !w.toUTC() {
		return nil, errors.New("it has a time that cannot be written again")
	}
	return &Record{
		Grant: version.Grant, Generation: version.Generation, Revision: version.Revision, Write: w.Write,
		Token:  Token{Access: w.Access, Refresh: w.Refresh, Type: w.Type, Expiry: w.Expiry},
		Scopes: w.Scopes, Extra: w.Extra, Account: w.Account, Client: w.Client,
		Connected: w.Connected, ConnectedBy: w.ConnectedBy, Refreshed: w.Refreshed, Used: w.Used, Forced: w.Forced, Due: w.Due,
		Suspect: w.Suspect, Fence: w.Fence, Failure: w.Failure, Intent: w.Intent, later: later,
	}, nil
}

// decodeOurs decodes a record that has no field of a later release, which is nearly every one, in a single pass; else it reports
// false.
func decodeOurs(plain []byte) (w wireRecord, ours bool) {
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	err := d.Decode(&w)
	return w, err == nil && d.InputOffset() == int64(len(plain))
}

// toUTC says whether every time has a year that can be written, in UTC.
func (w *wireRecord) toUTC() bool {
	times := []*time.Time{&w.Expiry, &w.Connected, &w.Refreshed, &w.Used, &w.Forced, &w.Due}
	if f := w.Failure; f != nil {
		times = append(times, &f.At, &f.RetryAt)
	}
	if i := w.Intent; i != nil {
		times = append(times, &i.Began, &i.Deadline)
	}
	for _, t := range times {
		*t = t.UTC()
		if year := t.Year(); year < 0 || year > 9999 {
			return false
		}
	}
	return true
}
