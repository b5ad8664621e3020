package tokenstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzDecodeRecord(f *testing.F) {
	plain, err := encodeRecord(&Record{Token: Token{Access: "CANARY"}, Failure: &Failure{}, Intent: &Intent{}})
	require.NoError(f, err)
	f.Add(plain)
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`{"v":"CANARY"}`))
	f.Add([]byte(`{"v":1,"Access":"a","later":{"a":[1e400,"\u2028"]},"":null}`))
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

func FuzzDecodeFields(f *testing.F) {
	f.Add(byte(0x3f), "grant", "1", "2", "3", "0", "sealed")
	f.Add(byte(0x3f), "", "-9223372036854775808", "0", "0", "1", "")
	f.Add(byte(0x3e), "grant", "1", "2", "3", "0", "sealed")
	f.Add(byte(0), "", "", "", "", "", "")
	f.Add(byte(0x3f), "grant", "CANARY", "2", "3", "2", "sealed")
	f.Fuzz(func(t *testing.T, there byte, grant, generation, revision, due, dead, sealed string) {
		values := make([]any, 6)
		for i, value := range []string{grant, generation, revision, due, dead, sealed} {
			if there&(1<<i) != 0 {
				values[i] = value
			}
		}
		decoded, err := decodeFields(values)
		switch {
		case there&0x3f == 0:
			require.ErrorIs(t, err, ErrNotFound)
		case err != nil:
			require.ErrorIs(t, err, ErrUnreadable)
			require.NotErrorIs(t, err, ErrNotFound, "a damaged connection is not one that was never made")
			require.NotContains(t, err.Error(), "CANARY")
		default:
			require.Equal(t, byte(0x3f), there&0x3f, "nothing is made up")
			require.Equal(t, GrantID(grant), decoded.version.Grant)
			require.Equal(t, dead == "1", decoded.dead)
			require.Equal(t, sealed, string(decoded.sealed))
		}
	})
}

// fuzzRing is the same in every run, so that a corpus can hold envelopes that open.
func fuzzRing(t testing.TB) *Keyring {
	ring, err := NewKeyring(Key{ID: "test", Bytes: []byte(strings.Repeat("k", keySize))}, Key{ID: "older", Bytes: []byte(strings.Repeat("o", keySize))})
	require.NoError(t, err)
	return ring
}

func FuzzOpenEnvelope(f *testing.F) {
	ring := fuzzRing(f)
	f.Add([]byte("place"), ring.seal(purposeRecord, []byte("place"), []byte("CANARY")))
	f.Add([]byte("place"), ring.sealUnder("older", purposeRecord, []byte("place"), nil))
	f.Add([]byte("place"), []byte{sealFormat, 255, 't'})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, place, envelope []byte) {
		plain, err := ring.open(purposeRecord, place, envelope)
		if err != nil {
			require.NotContains(t, err.Error(), "CANARY")
			return
		}
		key, err := keyOf(envelope)
		require.NoError(t, err)
		for _, p := range purposes[1:] {
			_, err := ring.open(p, place, envelope)
			require.Error(t, err, "for another purpose")
		}
		_, err = ring.open(purposeRecord, append(place, 0), envelope)
		require.Error(t, err, "at another place")
		for i := range envelope {
			envelope[i] ^= 1
			_, err := ring.open(purposeRecord, place, envelope)
			require.Error(t, err, "with byte %d flipped", i)
			envelope[i] ^= 1
		}
		again, err := ring.open(purposeRecord, place, ring.sealUnder(key, purposeRecord, place, plain))
		require.NoError(t, err)
		require.Equal(t, plain, again)
	})
}

func FuzzReadBackup(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"format":"bifrost-backup/1","store":"S","bytes":9223372036854775807}` + "\nCANARY"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var copied strings.Builder
		info, err := readBackup(strings.NewReader(string(raw)), &copied)
		if err != nil {
			require.True(t, errors.Is(err, errNoBackup) || errors.Is(err, errCutBackup) || errors.Is(err, errBadBackup), err)
			return
		}
		require.EqualValues(t, info.Bytes, copied.Len())
		require.True(t, strings.Contains(string(raw), copied.String()))
	})
}
