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
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
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

// A release before an upgrade, or beside it during one, must not drop what the later release wrote.
func TestFieldsOfALaterReleaseAreKept(t *testing.T) {
	later := `"zone":{"CANARY":[1,2.50,"<&>"]},"écho":null`
	plain := []byte(`{"v":1,"access":"a","ACCESS":"b",` + later + `}`)
	rec, err := decodeRecord(plain, Version{Grant: "g", Generation: 1})
	require.NoError(t, err)
	next := *rec // as whoever saves does
	next.Token.Access, next.Generation = "c", 2
	again, err := encodeRecord(&next)
	require.NoError(t, err)
	require.JSONEq(t, `{"v":1,"access":"c",`+later+`}`, string(again))
	back, err := decodeRecord(again, next.Version())
	require.NoError(t, err)
	require.Equal(t, "c", back.Token.Access)
	require.Len(t, back.later, 2)

	plain, err = encodeRecord(&Record{Grant: "g"})
	require.NoError(t, err)
	rec, err = decodeRecord(plain, Version{Grant: "g"})
	require.NoError(t, err)
	require.Nil(t, rec.later)
}

func TestARecordThatCannotBeWrittenIsRefused(t *testing.T) {
	_, err := encodeRecord(&Record{Due: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	require.Error(t, err)
}
