package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// tampered is two replicas on one Redis: one makes connections, the other has none in memory.
type tampered struct {
	*rawRedis
	maker, cold *running
}

func newTampered(t *testing.T) *tampered {
	t.Helper()
	addr, _ := redisServer(t)
	client := redis.NewClient(&redis.Options{Addr: addr, Password: redisPassword})
	t.Cleanup(func() { _ = client.Close() })
	w := &tampered{rawRedis: &rawRedis{client: client}}
	first := onRedis(t, addr, "")
	text := mustRead(t, first.config)
	_, graph, _ := strings.Cut(first.text(), "integrations:\n")
	text = strings.Replace(text, "integrations:\n", "integrations:\n"+strings.NewReplacer("graph:", "mail:", "/graph", "/mail").Replace(graph), 1)
	text = strings.Replace(text, "{id: one, file: key}", "{id: one, file: "+first.dir+"/key}", 1)
	first.write(t, text)
	second := newSetup(t, first.idp, func(s *setup, _ string) string {
		return strings.NewReplacer(first.proxy, s.proxy, first.auth, s.auth, first.ops, s.ops).Replace(text)
	})
	second.vars = first.vars
	w.maker, w.cold = first.start(t), second.start(t)
	w.maker.connect(t, "@global")
	w.maker.connectTo(t, "mail", "@global")
	return w
}

// dump returns what stands under a key, of whatever type. DUMP gives the fields of a hash in the order in which its table has them,
// which Redis is free to change.
func (w *tampered) dump(t *testing.T, key string) any {
	t.Helper()
	if fields, err := w.client.HGetAll(t.Context(), key).Result(); err == nil {
		return fields
	}
	text, err := w.client.Dump(t.Context(), key).Result()
	require.NoError(t, err)
	return text
}

func (w *tampered) hset(t *testing.T, key string, values ...any) {
	t.Helper()
	require.NoError(t, w.client.HSet(t.Context(), key, values...).Err())
}

// copyRow puts a copy of one row in another's place.
func (w *tampered) copyRow(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, w.client.Copy(t.Context(), from, to, 0, true).Err())
}

// TestTamperedRecordsAreUnreadable changes a record of an org behind bifrost's back. A request must be refused with
// record_unreadable, the record left as it is, the status say so, and an operator be able to connect the org anew. The global
// connection is there all the time, and must not be used.
func TestTamperedRecordsAreUnreadable(t *testing.T) {
	w := newTampered(t)
	sealed := func(t *testing.T, key string) string { return w.client.HGet(t.Context(), key, "b").Val() }
	reseal := func(change func(sealed string) string) func(t *testing.T, org, key string) {
		return func(t *testing.T, _, key string) { w.hset(t, key, "b", change(sealed(t, key))) }
	}
	for name, tamper := range map[string]func(t *testing.T, org, key string){
		"another org's record": func(t *testing.T, org, key string) {
			w.maker.connect(t, "other-"+org)
			w.copyRow(t, w.key(t, "graph", "other-"+org), key)
		},
		"another integration's record": func(t *testing.T, org, key string) {
			w.maker.connectTo(t, "mail", org)
			w.copyRow(t, w.key(t, "mail", org), key)
		},
		"the global connection's record": func(t *testing.T, _, key string) { w.copyRow(t, w.key(t, "graph", "@global"), key) },
		"a tombstone forged":             func(t *testing.T, _, key string) { w.hset(t, key, "x", "1") },
		"a tombstone of another org": func(t *testing.T, org, key string) {
			w.maker.connect(t, "gone-"+org)
			status, body := w.maker.api(t, http.MethodDelete, "/integrations/graph/connections/gone-"+org, "")
			require.Equal(t, http.StatusNoContent, status, body)
			w.copyRow(t, w.key(t, "graph", "gone-"+org), key)
		},
		"an earlier ciphertext": func(t *testing.T, org, key string) {
			before := sealed(t, key)
			status, body := w.maker.api(t, http.MethodPost, "/integrations/graph/connections/"+org+"/refresh", "")
			require.Equal(t, http.StatusOK, status, body)
			w.hset(t, key, "b", before)
		},
		"an earlier version":       func(t *testing.T, _, key string) { w.hset(t, key, "n", "0") },
		"a due time moved":         func(t *testing.T, _, key string) { w.hset(t, key, "d", "1") },
		"an unknown key id":        reseal(func(s string) string { return strings.Replace(s, "one", "two", 1) }),
		"an unknown format":        reseal(func(s string) string { return "\x02" + s[1:] }),
		"cut in the key id":        reseal(func(s string) string { return s[:3] }),
		"cut behind the key id":    reseal(func(s string) string { return s[:5] }),
		"cut in the nonce":         reseal(func(s string) string { return s[:10] }),
		"cut in the middle":        reseal(func(s string) string { return s[:len(s)/2] }),
		"the last byte cut":        reseal(func(s string) string { return s[:len(s)-1] }),
		"empty":                    reseal(func(string) string { return "" }),
		"a byte more":              reseal(func(s string) string { return s + "\x00" }),
		"oversized":                reseal(func(s string) string { return s + strings.Repeat("x", 4<<20) }),
		"of another type in Redis": func(t *testing.T, _, key string) { require.NoError(t, w.client.Set(t.Context(), key, "x", 0).Err()) },
		"without a field":          func(t *testing.T, _, key string) { require.NoError(t, w.client.HDel(t.Context(), key, "g").Err()) },
		"not a number":             func(t *testing.T, _, key string) { w.hset(t, key, "r", "CANARY") },
	} {
		t.Run(name, func(t *testing.T) {
			org := strings.ReplaceAll(strings.ReplaceAll(name, " ", "-"), "'", "")
			w.maker.connect(t, org)
			key := w.key(t, "graph", org)
			tamper(t, org, key)
			before := w.dump(t, key)
			for range 2 {
				require.NoError(t, w.cold.unreadable(http.DefaultClient, "/graph/me", org))
			}
			status, body := w.cold.api(t, http.MethodPost, "/integrations/graph/connections/"+org+"/refresh", "")
			require.Equal(t, http.StatusServiceUnavailable, status)
			require.Contains(t, body, "record_unreadable")
			require.Equal(t, before, w.dump(t, key), "it is left untouched")
			out, stderr, code := w.cold.command(t, "status")
			require.Equal(t, 0, code, stderr)
			require.Regexp(t, `graph +`+org+` +needs_reconnect .*the stored record cannot be read`, out)

			w.cold.connect(t, org)
			status, body = w.cold.call(t, org, "/graph/me")
			require.Equal(t, http.StatusOK, status, "a person has mended it: %s", body)
			require.Contains(t, body, `"user":"`+org+`"`)
		})
	}
	require.NotContains(t, w.cold.stderr.String()+w.maker.stderr.String(), "CANARY")
}

func TestADisconnectMendsWhatHasNoReadableVersion(t *testing.T) {
	w := newTampered(t)
	w.maker.connect(t, "acme")
	require.NoError(t, w.client.Set(t.Context(), w.key(t, "graph", "acme"), "x", 0).Err())
	status, body := w.cold.api(t, http.MethodDelete, "/integrations/graph/connections/acme", "")
	require.Equal(t, http.StatusNoContent, status, body)
	status, body = w.cold.api(t, http.MethodGet, "/integrations/graph/connections/acme", "")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, `"not_connected"`)
}

// TestAWholeEarlierRecordIsFoundOutByWhoKnowsBetter puts back a record with everything outside its seal: nothing in it tells its
// age. A process that has seen the later one puts it right; one that has just started cannot know.
func TestAWholeEarlierRecordIsFoundOutByWhoKnowsBetter(t *testing.T) {
	w := newTampered(t)
	w.maker.connect(t, "acme")
	key := w.key(t, "graph", "acme")
	before := w.client.HGetAll(t.Context(), key).Val()
	status, body := w.maker.api(t, http.MethodPost, "/integrations/graph/connections/acme/refresh", "")
	require.Equal(t, http.StatusOK, status, body)
	newest := w.client.HGetAll(t.Context(), key).Val()
	require.NotEqual(t, before["n"], newest["n"])
	for field, value := range before {
		w.hset(t, key, field, value)
	}
	require.Eventually(t, func() bool {
		status, body = w.maker.call(t, "acme", "/graph/me")
		return status != http.StatusOK || w.client.HGet(t.Context(), key, "n").Val() == newest["n"]
	}, patience, pollTime)
	require.Equal(t, http.StatusOK, status, body)
}

// TestAShelvedValueIsBoundToItsID copies what is kept for one connect link to another's place.
func TestAShelvedValueIsBoundToItsID(t *testing.T) {
	w := newTampered(t)
	shelved := func() map[string]bool {
		found := map[string]bool{}
		for _, key := range w.client.Keys(t.Context(), "bifrost:{*}:s:*").Val() {
			found[key] = true
		}
		return found
	}
	made := func(org string) (*url.URL, []string) {
		before := shelved()
		link, err := w.maker.link(t, org)
		require.NoError(t, err)
		var keys []string
		for key := range shelved() {
			if !before[key] {
				keys = append(keys, key)
			}
		}
		require.NotEmpty(t, keys)
		return link, keys
	}
	_, victims := made("victim")
	mine, own := made("mine")
	_, err := page(http.Get(mine.String()))
	require.NoError(t, err)
	for _, from := range victims {
		for _, to := range own {
			require.NoError(t, w.client.Copy(t.Context(), from, to, 0, true).Err())
		}
	}
	_, err = page(http.Get(mine.String()))
	require.ErrorContains(t, err, "403")
	require.NotContains(t, err.Error(), "victim")
	require.Error(t, followLink(mine))
	status, body := w.maker.api(t, http.MethodGet, "/integrations/graph/connections/victim", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `"not_connected"`)
}

// The program must answer for a session whose bytes are damaged as for none.
func TestADamagedSessionIsNoSession(t *testing.T) {
	w := newTampered(t)
	browser, err := w.maker.browse()
	require.NoError(t, err)
	require.NoError(t, w.maker.isSignedIn(browser))
	for _, key := range w.client.Keys(t.Context(), "bifrost:{*}:s:*").Val() {
		value := []byte(w.client.Get(t.Context(), key).Val())
		value[len(value)-1] ^= 1
		require.NoError(t, w.client.Set(t.Context(), key, value, redis.KeepTTL).Err())
	}
	require.Error(t, w.maker.isSignedIn(browser))
}
