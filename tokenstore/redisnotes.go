package tokenstore

import (
	"context"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
	// addNoteScript adds an entry to the sorted set of a slot, behind the last. KEYS: mark, notes. ARGV: id, sealed, how many stay, life in
	// ms. An entry that is there already is the success of an earlier try whose reply was lost. A list would do as well, but its commands
	// are not among those that users of this store have rights to.
	addNoteScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 'ok' end
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
redis.call('ZADD', KEYS[2], (tonumber(last[2]) or 0) + 1, ARGV[2])
for _, over in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1 - ARGV[3])) do redis.call('ZREM', KEYS[2], over) end
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 'ok'`)
	// renoteScript puts an entry in another's place. KEYS: mark, notes. ARGV: id, old, next.
	renoteScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not score then return redis.call('ZSCORE', KEYS[2], ARGV[3]) and 'ok' or 'no' end
redis.call('ZADD', KEYS[2], score, ARGV[3])
redis.call('ZREM', KEYS[2], ARGV[2])
return 'ok'`)
)

func (e *redisEngine) addNote(ctx context.Context, slot Slot, sealed []byte) error {
	at, name := locate(slot)
	_, err := e.run(ctx, addNoteScript, []string{at.mark(), at.notes(name)}, e.id, sealed, NotesKept, ttlMilli(NotesLife))
	return err
}

func (e *redisEngine) notes(ctx context.Context, slot Slot) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	at, name := locate(slot)
	var found *redis.StringSliceCmd
	var mark *redis.StringCmd
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		found, mark = p.ZRange(ctx, at.notes(name), 0, -1), p.Get(ctx, at.mark())
		return nil
	})
	if err := firstError(err, found.Err(), mark.Err()); err != nil {
		return nil, err
	}
	if mark.Val() != e.id {
		return nil, errEmptied
	}
	entries := make([][]byte, len(found.Val()))
	for i, entry := range found.Val() {
		entries[i] = []byte(entry)
	}
	slices.Reverse(entries)
	return entries, nil
}

func (e *redisEngine) noted(ctx context.Context) ([]Slot, error) {
	keys, err := e.scan(ctx, "bifrost:{*}:n:*")
	if err != nil {
		return nil, redisError(err)
	}
	slots := make([]Slot, 0, len(keys))
	for key := range keys {
		_, name, _ := strings.Cut(key, ":n:")
		slot, ok := parseName(name)
		if at, name := locate(slot); ok && at.notes(name) == key {
			slots = append(slots, slot)
		}
	}
	return slots, nil
}

func (e *redisEngine) renote(ctx context.Context, slot Slot, old, next []byte) error {
	at, name := locate(slot)
	answer, err := e.run(ctx, renoteScript, []string{at.mark(), at.notes(name)}, e.id, old, next)
	if err == nil && answer == answerNo {
		err = ErrConflict
	}
	return err
}
