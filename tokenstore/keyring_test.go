package tokenstore

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func testKey(id string, fill byte) Key {
	return Key{ID: id, Bytes: []byte(strings.Repeat(string(fill), keySize))}
}

func TestAKeyringRefusesBadKeys(t *testing.T) {
	good := testKey("a", 'a')
	for name, keys := range map[string][]Key{
		"none":                {},
		"31 bytes":            {{ID: "a", Bytes: make([]byte, 31)}},
		"33 bytes":            {good, {ID: "b", Bytes: make([]byte, 33)}},
		"no bytes":            {{ID: "a"}},
		"no id":               {{Bytes: good.Bytes}},
		"a long id":           {{ID: strings.Repeat("x", 65), Bytes: good.Bytes}},
		"an id twice":         {good, testKey("a", 'b')},
		"a key under two ids": {good, {ID: "b", Bytes: good.Bytes}},
	} {
		_, err := NewKeyring(keys...)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "aaaa", name)
	}
}

func TestTheFirstKeySealsAndAllOpen(t *testing.T) {
	old, err := NewKeyring(testKey("old", 'o'))
	require.NoError(t, err)
	rotated, err := NewKeyring(testKey("new", 'n'), testKey("old", 'o'))
	require.NoError(t, err)

	before := old.seal(purposeRecord, []byte("place"), []byte("plain"))
	plain, err := rotated.open(purposeRecord, []byte("place"), before)
	require.NoError(t, err)
	require.Equal(t, "plain", string(plain))

	after := rotated.seal(purposeRecord, []byte("place"), []byte("plain"))
	_, err = old.open(purposeRecord, []byte("place"), after)
	require.ErrorContains(t, err, "not in the ring")
	require.Contains(t, string(after), "new", "the key id stands outside")
}

func TestASealOpensOnlyForItsPurposeAndPlace(t *testing.T) {
	ring, err := NewKeyring(testKey("k", 'k'))
	require.NoError(t, err)
	sealed := ring.seal(purposeRecord, []byte("place"), []byte("plain"))
	for _, p := range purposes {
		for _, place := range []string{"place", "", "plac", "place "} {
			_, err := ring.open(p, []byte(place), sealed)
			require.Equal(t, p == purposeRecord && place == "place", err == nil, "%s %q", p, place)
		}
	}
	for cut := range sealed {
		_, err := ring.open(purposeRecord, []byte("place"), sealed[:cut])
		require.Error(t, err)
	}
	require.NotEqual(t, sealed, ring.seal(purposeRecord, []byte("place"), []byte("plain")), "nonces are random")
}

// TestPurposesHaveKeysOfTheirOwn compares every pair, each as it is sealed, and the bare keys without what stands beside them.
func TestPurposesHaveKeysOfTheirOwn(t *testing.T) {
	ring, err := NewKeyring(testKey("k", 'k'))
	require.NoError(t, err)
	require.ElementsMatch(t, []purpose{purposeRecord, purposeTombstone, purposeShelf, purposeCheck, purposeNote}, purposes)
	for _, one := range purposes {
		for _, other := range purposes {
			_, err := ring.open(other, []byte("place"), ring.seal(one, []byte("place"), []byte("plain")))
			require.Equal(t, one == other, err == nil, "%s as %s", one, other)
			bare := ring.aeads["k"][one].Seal(nil, nil, []byte("plain"), nil)
			_, err = ring.aeads["k"][other].Open(nil, nil, bare, nil)
			require.Equal(t, one == other, err == nil, "the key of %s for %s", one, other)
		}
	}
}

func TestParseKeyReadsWhatNewKeyMakes(t *testing.T) {
	text := NewKey()
	require.NotEqual(t, text, NewKey())
	key, err := ParseKey([]byte(" " + text + "\r\n"))
	require.NoError(t, err)
	require.Equal(t, text, base64.StdEncoding.EncodeToString(key))
	for _, bad := range []string{"", "CANARY", "CANARY!!", text + text, text[:40], strings.TrimRight(text, "="),
		base64.StdEncoding.EncodeToString([]byte("CANARY"))} {
		_, err := ParseKey([]byte(bad))
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), "CANARY")
	}
}

func TestAKeyNeverPrints(t *testing.T) {
	key := Key{ID: "2026", Bytes: []byte("CANARY-store-key-of-32-bytes-256")}
	js, err := json.Marshal(key)
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", key)
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v %#v %x %s", key, key, key, &key), string(js), log.String()} {
		require.NotContains(t, text, "CANARY")
		require.NotContains(t, text, "43414e415259")
		require.NotContains(t, text, base64.StdEncoding.EncodeToString(key.Bytes))
	}
}
