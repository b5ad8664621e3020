package tokenstore

import (
	"context"
	"encoding/base64"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

var (
	// resealScript replaces the sealed bytes of a row and leaves its life and its index entry as they are. KEYS: mark, row.
	// ARGV: id, old, next. A row that has the next bytes already is the success of an earlier try whose reply was lost.
	resealScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
local stored = redis.call('HMGET', KEYS[2], 'b')[1]
if stored == ARGV[3] then return 'ok' end
if stored ~= ARGV[2] then return 'no' end
redis.call('HSET', KEYS[2], 'b', ARGV[3])
return 'ok'`)
	// reshelveScript replaces a shelved value. KEYS: mark, value. ARGV: id, old, next.
	reshelveScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
local stored = redis.call('GET', KEYS[2])
if stored == ARGV[3] then return 'ok' end
if stored ~= ARGV[2] then return 'no' end
redis.call('SET', KEYS[2], ARGV[3], 'KEEPTTL')
return 'ok'`)
	// recheckScript replaces the key-check record. KEYS: store. ARGV: id, old, next.
	recheckScript = redis.NewScript(`
local stored = redis.call('HMGET', KEYS[1], 'id', 'check')
if stored[1] ~= ARGV[1] then return 'emptied' end
if stored[2] == ARGV[3] then return 'ok' end
if stored[2] ~= ARGV[2] then return 'no' end
redis.call('HSET', KEYS[1], 'check', ARGV[3])
return 'ok'`)
)

// scanCount is how many keys one step of a scan looks at.
const scanCount = 1000

// every takes live rows from the indexes, so that one that was evicted is told, and tombstones, which stand in no index, from a
// scan of all keys.
func (e *redisEngine) every(ctx context.Context) iter.Seq2[Slot, rowEntry] {
	return func(yield func(Slot, rowEntry) bool) {
		for slot, entry := range e.list(ctx, "") {
			if entry.err == nil && entry.row.dead {
				continue // the scan finds it
			}
			if !yield(slot, entry) || entry.err != nil && slot == (Slot{}) {
				return
			}
		}
		keys, err := e.scan(ctx, "bifrost:{*}:r:*")
		if err != nil {
			yield(Slot{}, rowEntry{err: redisError(err)})
			return
		}
		slots := make([]Slot, 0, len(keys))
		for key := range keys {
			if slot, ok := parseRowKey(key); ok {
				slots = append(slots, slot)
			}
		}
		for page := range slices.Chunk(slots, redisPage) {
			if !e.buriedPage(ctx, page, yield) {
				return
			}
		}
	}
}

// scan returns the keys of every server that match a pattern.
func (e *redisEngine) scan(ctx context.Context, pattern string) (map[string]struct{}, error) {
	var mu sync.Mutex // guards found: a Cluster is asked server by server, at once
	found := map[string]struct{}{}
	scan := func(ctx context.Context, server redis.Cmdable) error {
		var cursor uint64
		for {
			step, cancel := context.WithTimeout(ctx, redisTimeout)
			keys, next, err := server.Scan(step, cursor, pattern, scanCount).Result()
			cancel()
			if err != nil {
				return err
			}
			mu.Lock()
			for _, key := range keys {
				found[key] = struct{}{}
			}
			mu.Unlock()
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}
	var err error
	if cluster, is := e.client.(*redis.ClusterClient); is {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, server *redis.Client) error { return scan(ctx, server) })
	} else {
		err = scan(ctx, e.client)
	}
	return found, err
}

func (e *redisEngine) shelved(ctx context.Context) ([][32]byte, error) {
	keys, err := e.scan(ctx, "bifrost:{*}:s:*")
	if err != nil {
		return nil, redisError(err)
	}
	ids := make([][32]byte, 0, len(keys))
	for key := range keys {
		_, name, _ := strings.Cut(key, ":s:")
		hash, err := base64.RawURLEncoding.DecodeString(name)
		if err == nil && len(hash) == 32 && locateShelf([32]byte(hash)).shelf([32]byte(hash)) == key {
			ids = append(ids, [32]byte(hash))
		}
	}
	return ids, nil
}

// parseRowKey undoes shard.row; a key in a shard that is not its slot's is none of ours.
func parseRowKey(key string) (Slot, bool) {
	_, name, _ := strings.Cut(key, ":r:")
	slot, ok := parseName(name)
	at, name := locate(slot)
	return slot, ok && at.row(name) == key
}

// buriedPage yields the tombstones among slots; it returns false when the walk has ended.
func (e *redisEngine) buriedPage(ctx context.Context, slots []Slot, yield func(Slot, rowEntry) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	cmds := make([]*redis.SliceCmd, len(slots))
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, slot := range slots {
			at, name := locate(slot)
			cmds[i] = p.HMGet(ctx, at.row(name), rowFields...)
		}
		return nil
	})
	cancel() // before the consumer's code runs, which may take its time
	for i, cmd := range cmds {
		if refused := unanswered(err, cmd.Err(), cmd.Val() != nil); refused != nil {
			yield(Slot{}, rowEntry{err: redisError(refused)})
			return false
		}
		if cmd.Err() != nil && !redis.HasErrorPrefix(cmd.Err(), "WRONGTYPE") {
			yield(Slot{}, rowEntry{err: firstError(err, cmd.Err())})
			return false
		}
		stored, err := decodeFields(cmd.Val())
		if err != nil || !stored.dead { // a live row came from its index, with what is wrong with it
			continue
		}
		if !yield(slots[i], rowEntry{row: stored}) {
			return false
		}
	}
	return true
}

func (e *redisEngine) reseal(ctx context.Context, slot Slot, old, next []byte) error {
	at, name := locate(slot)
	answer, err := e.run(ctx, resealScript, []string{at.mark(), at.row(name)}, e.id, old, next)
	if err == nil && answer == answerNo {
		err = ErrConflict
	}
	return err
}

func (e *redisEngine) reshelve(ctx context.Context, id [32]byte, old, next []byte) error {
	at := locateShelf(id)
	answer, err := e.run(ctx, reshelveScript, []string{at.mark(), at.shelf(id)}, e.id, old, next)
	if err == nil && answer == answerNo {
		err = ErrConflict
	}
	return err
}

func (e *redisEngine) check(ctx context.Context) (id string, record []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	values, err := e.client.HMGet(ctx, storeKey, "id", "check").Result()
	if err != nil {
		return "", nil, redisError(err)
	}
	id, _ = values[0].(string)
	check, _ := values[1].(string)
	if id != e.id {
		return "", nil, errEmptied
	}
	return id, []byte(check), nil
}

func (e *redisEngine) recheck(ctx context.Context, old, next []byte) error {
	answer, err := e.run(ctx, recheckScript, []string{storeKey}, e.id, old, next)
	if err == nil && answer == answerNo {
		err = ErrConflict
	}
	return err
}
