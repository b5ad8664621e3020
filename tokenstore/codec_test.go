package tokenstore

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEveryFieldOfARecordIsKept(t *testing.T) {
	var rec Record
	fill(reflect.ValueOf(&rec).Elem())
	plain, err := encodeRecord(&rec)
	require.NoError(t, err)
	got, err := decodeRecord(plain, rec.Version())
	require.NoError(t, err)
	require.Equal(t, &rec, got)
}

// fill gives every field a value other than its zero, so that a field added later cannot be forgotten in the codec.
func fill(v reflect.Value) {
	switch value := v.Addr().Interface().(type) {
	case *time.Time:
		*value = time.Date(2026, 11, 22, 18, 30, 0, 123456789, time.UTC)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"a": "b"}))
	case reflect.String:
		v.SetString("x\"\\\n\u2028<&>")
	case reflect.Int, reflect.Int64:
		v.SetInt(1<<53 + 1)
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("a field of a new kind: " + v.Type().String())
	}
}

func TestTimesComeBackInUTC(t *testing.T) {
	local := time.Date(2026, 11, 22, 20, 0, 0, 0, time.FixedZone("CET", 3600))
	plain, err := encodeRecord(&Record{Grant: "g", Due: local})
	require.NoError(t, err)
	got, err := decodeRecord(plain, Version{Grant: "g"})
	require.NoError(t, err)
	require.Equal(t, local.UTC(), got.Due)
}

func TestARecordOfALaterReleaseIsNotRead(t *testing.T) {
	plain, err := encodeRecord(&Record{Grant: "g"})
	require.NoError(t, err)
	var fields map[string]any
	require.NoError(t, json.Unmarshal(plain, &fields))
	for _, v := range []int{wireVersion + 1, 0, -1} {
		fields["v"] = v
		later, err := json.Marshal(fields)
		require.NoError(t, err)
		_, err = decodeRecord(later, Version{Grant: "g"})
		require.ErrorContains(t, err, "version")
	}
}

func TestARecordThatCannotBeWrittenIsRefused(t *testing.T) {
	_, err := encodeRecord(&Record{Due: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	require.Error(t, err)
}

func FuzzDecodeRecord(f *testing.F) {
	plain, err := encodeRecord(&Record{Token: Token{Access: "CANARY"}, Failure: &Failure{}, Intent: &Intent{}})
	require.NoError(f, err)
	f.Add(plain)
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`{"v":"CANARY"}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		rec, err := decodeRecord(plain, Version{Grant: "g", Generation: 1, Revision: 1})
		if err != nil {
			require.NotContains(t, err.Error(), "CANARY")
			return
		}
		again, err := encodeRecord(rec)
		require.NoError(t, err)
		back, err := decodeRecord(again, rec.Version())
		require.NoError(t, err)
		once, err := encodeRecord(back)
		require.NoError(t, err)
		require.Equal(t, again, once)
	})
}

func FuzzDecodeRow(f *testing.F) {
	f.Add(encodeRow(row{version: Version{"grant", 1, 2}, due: 3, sealed: []byte("sealed")}))
	f.Add(encodeRow(row{dead: true}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if decoded, err := decodeRow(raw); err == nil {
			require.Equal(t, raw, encodeRow(decoded), "no two encodings mean the same row")
		}
	})
}

func FuzzSlotKeys(f *testing.F) {
	f.Add("a.b", "c", "a", "b.c")
	f.Add("a", "b:r", "a:r", "b")
	f.Add("", "\x00", "\x00", "")
	f.Fuzz(func(t *testing.T, i1, o1, i2, o2 string) {
		one, two := Slot{i1, Org(o1)}, Slot{i2, Org(o2)}
		at1, name1 := locate(one)
		at2, name2 := locate(two)
		require.Equal(t, one == two, string(slotKey(one)) == string(slotKey(two)))
		require.Equal(t, one == two, at1.row(name1) == at2.row(name2))
		require.Equal(t, one == two, string(row{}.place(one)) == string(row{}.place(two)))
		parsed, ok := parseSlotKey(slotKey(one))
		require.True(t, ok)
		require.Equal(t, one, parsed)
		parsed, ok = parseName(name1)
		require.True(t, ok)
		require.Equal(t, one, parsed)
		require.NotRegexp(t, `[^0-9A-Za-z_.:{}-]`, at1.row(name1), "no byte of a caller's stands in a key")
	})
}
