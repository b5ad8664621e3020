package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// rawStore reaches the stored rows of a stopped file store, or of a Redis, behind bifrost's back: every row by its org, as one
// string of bytes that set takes back.
type rawStore interface {
	open(t *testing.T, keys *tokenstore.Keyring) store
	rows(t *testing.T, prefix string) map[string][]byte
	set(t *testing.T, rows map[string][]byte)
}

// rawFile is the rawStore of a file.
type rawFile struct{ path string }

func (f rawFile) open(t *testing.T, keys *tokenstore.Keyring) store {
	t.Helper()
	s, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: f.path, Keys: keys})
	require.NoError(t, err)
	return s
}

func (f rawFile) do(t *testing.T, work func(rows *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(f.path, 0o600, &bbolt.Options{Timeout: patience})
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error { return work(tx.Bucket([]byte("rows"))) }))
	require.NoError(t, db.Close())
}

func fileKey(org string) []byte {
	return append([]byte("\x05graph"), append([]byte{byte(len(org))}, org...)...)
}

func (f rawFile) rows(t *testing.T, prefix string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	f.do(t, func(rows *bbolt.Bucket) error {
		return rows.ForEach(func(key, row []byte) error {
			if org := string(key[7:]); strings.HasPrefix(org, prefix) {
				found[org] = bytes.Clone(row)
			}
			return nil
		})
	})
	return found
}

func (f rawFile) set(t *testing.T, changed map[string][]byte) {
	t.Helper()
	f.do(t, func(rows *bbolt.Bucket) error {
		for org, row := range changed {
			if err := rows.Put(fileKey(org), row); err != nil {
				return err
			}
		}
		return nil
	})
}

// rawRedis is the rawStore of a Redis. The fields of a row stand one behind the other.
type rawRedis struct {
	url    string
	client *redis.Client
	sizes  map[string][]int // of the fields, by org
}

var redisFields = []string{"g", "n", "r", "d", "x", "b"}

func (s *rawRedis) open(t *testing.T, keys *tokenstore.Keyring) store {
	t.Helper()
	return storetest.OpenRedisAs(t, tokenstore.RedisConfig{URL: s.url, Keys: keys})
}

// key returns the key of an org's row.
func (s *rawRedis) key(t *testing.T, integration, org string) string {
	t.Helper()
	enc := base64.RawURLEncoding
	keys, err := s.client.Keys(t.Context(), "bifrost:{*}:r:"+enc.EncodeToString([]byte(integration))+"."+enc.EncodeToString([]byte(org))).Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	return keys[0]
}

func (s *rawRedis) rows(t *testing.T, prefix string) map[string][]byte {
	t.Helper()
	keys, err := s.client.Keys(t.Context(), "bifrost:{*}:r:*").Result()
	require.NoError(t, err)
	found := map[string][]byte{}
	s.sizes = map[string][]int{}
	for _, key := range keys {
		org, err := base64.RawURLEncoding.DecodeString(key[strings.LastIndex(key, ".")+1:])
		require.NoError(t, err)
		if !strings.HasPrefix(string(org), prefix) {
			continue
		}
		for _, value := range s.client.HMGet(t.Context(), key, redisFields...).Val() {
			found[string(org)] = append(found[string(org)], value.(string)...)
			s.sizes[string(org)] = append(s.sizes[string(org)], len(value.(string)))
		}
	}
	return found
}

func (s *rawRedis) set(t *testing.T, changed map[string][]byte) {
	t.Helper()
	keys, err := s.client.Keys(t.Context(), "bifrost:{*}:r:*").Result()
	require.NoError(t, err)
	p := s.client.Pipeline()
	for _, key := range keys {
		org, err := base64.RawURLEncoding.DecodeString(key[strings.LastIndex(key, ".")+1:])
		require.NoError(t, err)
		row, is := changed[string(org)]
		if !is {
			continue
		}
		for i, size := range s.sizes[string(org)] {
			p.HSet(t.Context(), key, redisFields[i], row[:size])
			row = row[size:]
		}
	}
	_, err = p.Exec(t.Context())
	require.NoError(t, err)
}

// TestEveryFlippedBitIsUnreadable flips every bit of a stored record, each in a connection of its own, and asks the real program
// for all of them. None may look as if it had never been connected, nor be answered with the global connection.
func TestEveryFlippedBitIsUnreadable(t *testing.T) {
	for name, on := range map[string]func(t *testing.T) (*setup, rawStore){
		"file": func(t *testing.T) (*setup, rawStore) {
			s := newSetup(t, authflowtest.New(t, authflowtest.Config{}), func(_ *setup, text string) string {
				return text + "encryption_keys: [{id: one, file: key}]\n"
			})
			return s, rawFile{filepath.Join(s.dir, "bifrost.db")}
		},
		"redis": func(t *testing.T) (*setup, rawStore) {
			addr, _ := redisServer(t)
			client := redis.NewClient(&redis.Options{Addr: addr, Password: redisPassword})
			t.Cleanup(func() { _ = client.Close() })
			return onRedis(t, addr, ""), &rawRedis{url: "redis://:" + redisPassword + "@" + addr, client: client}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, raw := on(t)
			text := tokenstore.NewKey()
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, "key"), []byte(text), 0o600))
			s.write(t, strings.Replace(mustRead(t, s.config), "log: {level: debug}", "log: {level: warn}", 1))
			r := s.start(t)
			s.connect(t, "control")
			s.connect(t, "@global")
			r.signal(t, sigTerm)
			require.Equal(t, 0, r.exit(t))

			flipped := flipEveryBit(t, raw, text)
			r = s.start(t)
			s.askForAll(t, flipped)
			status, body := s.call(t, "control", "/graph/me")
			require.Equal(t, http.StatusOK, status, body)
			r.signal(t, sigTerm)
			require.Equal(t, 0, r.exit(t))
			require.Equal(t, flipped, raw.rows(t, "flip-"), "they are left untouched")
		})
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}

// flipEveryBit saves a record for each bit that one has, flips it, and returns the rows.
func flipEveryBit(t *testing.T, raw rawStore, key string) map[string][]byte {
	t.Helper()
	material, err := tokenstore.ParseKey([]byte(key))
	require.NoError(t, err)
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "one", Bytes: material})
	require.NoError(t, err)
	save := func(from, to int) {
		s := raw.open(t, keys)
		for n := from; n < to; n++ {
			slot := tokenstore.Slot{Integration: "graph", Org: tokenstore.Org(fmt.Sprintf("flip-%05d", n))}
			rec := &tokenstore.Record{
				Grant: tokenstore.GrantID("grant"), Generation: 1, Write: "write",
				Token: tokenstore.Token{Access: "CANARY-access", Refresh: "CANARY-refresh", Type: "Bearer", Expiry: time.Now().UTC().Truncate(time.Second).Add(time.Hour)},
				Due:   time.Now().UTC().Truncate(time.Second).Add(time.Hour),
			}
			require.NoError(t, s.Save(t.Context(), slot, rec, tokenstore.Version{}))
		}
		if _, is := s.(*tokenstore.File); is { // a Redis is closed with the test
			require.NoError(t, s.Close())
		}
	}
	save(0, 1)
	bits := 8 * len(raw.rows(t, "flip-")["flip-00000"])
	save(1, bits)
	rows := raw.rows(t, "flip-")
	require.Len(t, rows, bits)
	for org, row := range rows {
		var n int
		_, err := fmt.Sscanf(org, "flip-%05d", &n)
		require.NoError(t, err)
		row[min(n/8, len(row)-1)] ^= 1 << (n % 8) // no row is longer than the first
	}
	raw.set(t, rows)
	t.Logf("%d bits", bits)
	return rows
}

// askForAll makes a request for every org, each of which must be answered with record_unreadable.
func (s *setup) askForAll(t *testing.T, orgs map[string][]byte) {
	t.Helper()
	client := &http.Client{Timeout: patience}
	queue := make(chan string, len(orgs))
	for org := range orgs {
		queue <- org
	}
	close(queue)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for org := range queue {
				if err := s.unreadable(client, "/graph/me", org); err != nil {
					t.Error(err)
				}
			}
		})
	}
	asking.Wait()
}

// unreadable says what is wrong with the answer to a request for a record that cannot be read.
func (s *setup) unreadable(client *http.Client, path, org string) error {
	req, err := http.NewRequest(http.MethodGet, "http://"+s.proxy+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+callerKey)
	req.Header.Set("X-Org-ID", org)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	h := resp.Header
	if resp.StatusCode != http.StatusServiceUnavailable || h.Get("X-Bifrost-Error") != "record_unreadable" || h.Get("Retry-After") == "" || h.Get("X-Bifrost-Connection") != "" {
		err = fmt.Errorf("%s: %d %v", org, resp.StatusCode, h)
	}
	var body bytes.Buffer
	_, readErr := body.ReadFrom(resp.Body)
	if strings.Contains(body.String(), "CANARY") {
		err = fmt.Errorf("%s: %s", org, &body)
	}
	_ = resp.Body.Close()
	if err == nil {
		err = readErr
	}
	return err
}
