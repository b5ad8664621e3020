package tokenstore

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// sealersKey is a sorted set: which process seals with which key, by the time at which it last said so.
var sealersKey = shard(0).key("sealers")

// sealerLife is how long a process that has ended without a word is taken for living.
const sealerLife = 3 * careEvery

// sealersScript says which key a process seals with, if it says any, and returns what the living have said. KEYS: mark, sealers.
// ARGV: id, what this process says (empty: nothing), what it said before, life in ms.
var sealersScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'emptied'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[4])) do redis.call('ZREM', KEYS[2], over) end
if ARGV[3] ~= ARGV[2] then redis.call('ZREM', KEYS[2], ARGV[3]) end
if ARGV[2] ~= '' then redis.call('ZADD', KEYS[2], now, ARGV[2]) end
return redis.call('ZRANGE', KEYS[2], 0, -1)`)

// sealer is one of the processes that seal in a Redis. Each tells the others with which key it does, so that none takes away a
// key that another still needs.
type sealer struct {
	name string // random

	mu   sync.Mutex // guards said, and the order of what is said
	said string
}

func newSealer() *sealer { return &sealer{name: rand.Text()} }

// say tells the others that this process seals with key (empty: with none, it ends), and returns the IDs of the keys that the
// others seal with, sorted.
func (s *sealer) say(ctx context.Context, e *redisEngine, key string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	saying := ""
	if key != "" {
		saying = s.name + "." + base64.RawURLEncoding.EncodeToString([]byte(key))
	}
	living, err := e.runStrings(ctx, sealersScript, []string{shard(0).mark(), sealersKey}, e.id, saying, s.said, sealerLife.Milliseconds())
	if err != nil {
		return nil, err
	}
	if slices.Equal(living, []string{answerEmptied}) {
		return nil, errEmptied
	}
	s.said = saying
	var keys []string
	for _, member := range living {
		name, encoded, _ := strings.Cut(member, ".")
		if id, err := base64.RawURLEncoding.DecodeString(encoded); err == nil && name != s.name {
			keys = append(keys, string(id))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// sealWith asks which keys the other processes seal with, and tells them with which this one does.
func (r *Redis) sealWith(ctx context.Context) (others []string, err error) {
	return r.sealer.say(ctx, r.engine, r.vault.ring.Load().first)
}

// othersError says that another process cannot do without a key yet. It matches ErrConflict.
type othersError struct{ key string }

func (e othersError) Error() string {
	return fmt.Sprintf("another replica seals with the encryption key %q still: put the newest key first for every replica, and try again when each has "+
		"loaded it (one that has ended badly counts for %s)", e.key, sealerLife)
}

func (othersError) Is(target error) bool { return target == ErrConflict }

// SetKeys is as that of a File, and refuses a ring too that lacks a key with which another replica seals, or did less than three
// minutes ago if it has ended without closing the store. The user needs the command scan when a key is taken away.
func (r *Redis) SetKeys(ctx context.Context, keys *Keyring) error {
	if err := r.vault.setKeys(ctx, keys, r.sealWith); err != nil {
		return err
	}
	_, _ = r.sealWith(ctx) // until it is told, a minute later at most, the others take it that the key before is needed
	return nil
}

// MissingKeys says what is stored under keys that the ring lacks, by their IDs: those connections cannot be read without them. The
// user needs the command scan.
func (r *Redis) MissingKeys(ctx context.Context) (map[string]KeyUse, error) {
	return r.vault.missingKeys(ctx)
}

// Rekey seals every record and shelved value anew with the newest key of the ring, while every replica goes on: no version
// changes, nobody has to read again. It refuses while another replica seals with another key: that one may not have the newest
// yet. It can be repeated at will. See Rekeyed for what is left to do. The user needs the command scan besides those of NewRedis.
func (r *Redis) Rekey(ctx context.Context) (Rekeyed, error) {
	others, err := r.sealWith(ctx)
	if err != nil {
		return Rekeyed{}, wrap("rekey", Slot{}, err)
	}
	newest := r.vault.ring.Load().first
	for _, id := range others {
		if id != newest {
			return Rekeyed{}, wrap("rekey", Slot{}, othersError{id})
		}
	}
	return r.vault.rekey(ctx)
}

// told tells the others of this process every minute, as long as it lives.
func (r *Redis) told(ctx context.Context) { _, _ = r.sealWith(ctx) } // a Redis that is away is told of by every operation

// farewell tells the others that this process seals no more. What it does not tell is over after sealerLife.
func (r *Redis) farewell() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = r.sealer.say(ctx, r.engine, "")
}
