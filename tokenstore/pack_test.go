package tokenstore

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// filled is a record with something in every field, whatever fields there are.
func filled(t *testing.T) *Record {
	t.Helper()
	at := time.Date(2026, 11, 26, 7, 0, 0, 123456789, time.UTC)
	r := &Record{
		Grant: "grant", Generation: 3, Revision: -1, Write: "write",
		Token:  Token{Access: "CANARY-access", Refresh: "CANARY-refresh", Type: "Bearer", Expiry: at.Add(time.Hour)},
		Scopes: []string{"read", "", "write"}, Extra: map[string]string{"realm": "1"}, Account: "account", Client: "client",
		Connected: at, ConnectedBy: "ops", Refreshed: at.Add(1), Used: at.Add(2), Forced: at.Add(3), Due: at.Add(4),
		Suspect: true, Fence: 1 << 62,
		Failure: &Failure{Code: "other", Text: "no", At: at, Attempts: 2, RetryAt: at.Add(5), Mandated: true, Dead: true},
		Intent:  &Intent{Holder: "holder", Fence: 7, Began: at, Deadline: at.Add(6)},
		later:   map[string]json.RawMessage{"new": json.RawMessage(`{"a":[1]}`)},
	}
	v := reflect.ValueOf(r).Elem()
	for i := range v.NumField() {
		require.False(t, v.Field(i).IsZero(), "give %s a value here, and pack it", v.Type().Field(i).Name)
	}
	return r
}

func TestARecordComesOutOfItsPackAsItWas(t *testing.T) {
	whole := filled(t)
	require.Equal(t, whole, Pack(whole).Record())
	v := reflect.ValueOf(whole).Elem()
	for i := range v.NumField() { // and without any one of its fields
		if !v.Field(i).CanSet() {
			continue
		}
		part := *whole
		reflect.ValueOf(&part).Elem().Field(i).SetZero()
		require.Equal(t, &part, Pack(&part).Record(), v.Type().Field(i).Name)
	}
	require.Equal(t, &Record{Scopes: []string{}}, Pack(&Record{Scopes: []string{}}).Record())
	require.Equal(t, &Record{}, Pack(&Record{}).Record())
}

func TestTimesArePackedInUTC(t *testing.T) {
	now := time.Now()
	got := Pack(&Record{Used: now, Due: now.In(time.FixedZone("", 3600))}).Record()
	require.Equal(t, now.UTC().Round(0), got.Used)
	require.Equal(t, now.UTC().Round(0), got.Due)
}

func TestNoRecordIsNoPack(t *testing.T) {
	require.True(t, Packed{}.IsZero())
	require.Nil(t, Packed{}.Record())
	require.False(t, Pack(&Record{}).IsZero())
}

// Both halves of a copy may be changed: they share nothing but what is never changed in place.
func TestTwoRecordsOfOnePackShareNothing(t *testing.T) {
	p := Pack(filled(t))
	one := p.Record()
	one.Scopes[0], one.Extra["realm"], one.Failure.Code, one.Intent.Holder = "x", "x", "x", "x"
	require.Equal(t, filled(t), p.Record())
}

func BenchmarkUnpack(b *testing.B) {
	p := Pack(&Record{Grant: "grant", Token: Token{Refresh: "refresh", Type: "Bearer", Expiry: time.Now()}, Scopes: []string{"read"}, Connected: time.Now()})
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Record()
	}
}
