package tokenstore

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"slices"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// redisEngine keeps rows, leases and shelved values in Redis. Each script checks the shard's mark first.
type redisEngine struct {
	client   redis.UniversalClient
	id       string // the store's, as begin found it
	clock    clock
	replicas replicas

	acceptDataLoss, mustExist bool
}

var _ engine = (*redisEngine)(nil)

// Answers of the scripts.
const (
	answerEmptied = "emptied"
	answerNo      = "no" // a conflict, or a lease that is another's
)

// swapScript is replaceable in Lua. KEYS: mark, row, index. ARGV: id, name, previous version (3), next version (3), due, dead,
// sealed, life of a tombstone, channel. A stored row that is the next one already is the success of an earlier try whose
// reply was lost: no two seals are equal. It is published again, so that a WAIT on this connection has something to wait for.
// ZREM of nothing comes first because Redis, when it is full, lets a script finish that has written: a rotated token lands
// although no new lease is given. The row is never deleted on the way: in a slot that is moving, Redis refuses to write a key
// that is no longer there, and would keep the deletion; but for what is no row, which an operator replaces deliberately.
var swapScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
local old = redis.pcall('HMGET', KEYS[2], 'g', 'n', 'r', 'x', 'b', 'd')
local malformed = ARGV[3] == '' and ARGV[5] == '-1'
if old.err and not malformed then return old end
if old[5] == ARGV[11] then
  redis.pcall('PUBLISH', ARGV[13], ARGV[2])
  return 'ok'
end
local none, free = ARGV[3] == '' and ARGV[4] == '0' and ARGV[5] == '0', false
local function number(v) return v and #v < 19 and string.match(v, '^-?%d+$') end
if malformed then
  free = old.err or old[4] == '1' or not (old[1] and number(old[2]) and number(old[3]) and number(old[6]) and (old[4] == '0' or old[4] == '1') and old[5])
elseif redis.call('EXISTS', KEYS[2]) == 0 then free = none
elseif old[4] == '1' then free = none and old[1] ~= ARGV[6]
else free = old[1] == ARGV[3] and old[2] == ARGV[4] and old[3] == ARGV[5] end
if not free then return 'no' end
redis.call('ZREM', KEYS[3], '')
if old.err then redis.call('DEL', KEYS[2]) end
redis.call('HSET', KEYS[2], 'g', ARGV[6], 'n', ARGV[7], 'r', ARGV[8], 'd', ARGV[9], 'x', ARGV[10], 'b', ARGV[11])
if ARGV[10] == '1' then
  redis.call('PEXPIRE', KEYS[2], ARGV[12])
  redis.call('ZREM', KEYS[3], ARGV[2])
else
  redis.call('PERSIST', KEYS[2])
  redis.call('ZADD', KEYS[3], ARGV[9] == '0' and '+inf' or ARGV[9], ARGV[2])
end
redis.pcall('PUBLISH', ARGV[13], ARGV[2])
return 'ok'`)

// rowFields are the fields of a row in the order of decodeFields.
var rowFields = []string{"g", "n", "r", "d", "x", "b"}

func (e *redisEngine) get(ctx context.Context, slot Slot) (row, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	at, name := locate(slot)
	var score *redis.FloatCmd
	var fields *redis.SliceCmd
	var mark *redis.StringCmd
	// In this order: a row that is stored meanwhile is found, one that is deleted meanwhile is found as a tombstone.
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		score, fields, mark = p.ZScore(ctx, at.index(), name), p.HMGet(ctx, at.row(name), rowFields...), p.Get(ctx, at.mark())
		return nil
	})
	if err := firstError(err, score.Err(), fields.Err(), mark.Err()); err != nil {
		return row{}, err
	}
	switch stored, err := decodeFields(fields.Val()); {
	case err == nil || !errors.Is(err, ErrNotFound):
		return stored, err
	case mark.Val() != e.id:
		return row{}, errEmptied
	case score.Err() == nil:
		return row{}, errGone
	default:
		return row{}, ErrNotFound
	}
}

// errGone is a row that the index knows but that is not there: evicted, or deleted by hand. It is not "never connected".
var errGone error = &UnreadableError{Stored: malformed, Reason: "redis has lost it: is its maxmemory-policy noeviction?"}

func (e *redisEngine) swap(ctx context.Context, slot Slot, prev Version, next row) error {
	at, name := locate(slot)
	dead := "0"
	if next.dead {
		dead = "1"
	}
	answer, err := e.runReplicated(ctx, swapScript, []string{at.mark(), at.row(name), at.index()}, e.id, name,
		string(prev.Grant), prev.Generation, prev.Revision,
		string(next.version.Grant), next.version.Generation, next.version.Revision,
		next.due, dead, next.sealed, TombstoneLife.Milliseconds(), feedChannel)
	if err == nil && answer == answerNo {
		err = ErrConflict
	}
	return err
}

// redisPage is how many rows of a list, or shards of an index, are read at once.
const redisPage = 128

func (e *redisEngine) list(ctx context.Context, integration string) iter.Seq2[Slot, rowEntry] {
	return func(yield func(Slot, rowEntry) bool) {
		for n := range shards {
			names, err := e.names(ctx, shard(n))
			if err != nil {
				yield(Slot{}, rowEntry{err: err})
				return
			}
			if integration != "" {
				names = slices.DeleteFunc(names, func(name string) bool { return !nameOf(name, integration) })
			}
			for page := range slices.Chunk(names, redisPage) {
				if !e.listPage(ctx, shard(n), page, yield) {
					return
				}
			}
		}
	}
}

// names returns the name of every connection in a shard.
func (e *redisEngine) names(ctx context.Context, at shard) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var names *redis.StringSliceCmd
	var mark *redis.StringCmd
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		names, mark = p.ZRange(ctx, at.index(), 0, -1), p.Get(ctx, at.mark())
		return nil
	})
	if err := firstError(err, names.Err(), mark.Err()); err != nil {
		return nil, err
	}
	if mark.Val() != e.id {
		return nil, errEmptied
	}
	return names.Val(), nil
}

// listPage yields the rows of names; it returns false when the list has ended.
func (e *redisEngine) listPage(ctx context.Context, at shard, names []string, yield func(Slot, rowEntry) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	cmds := make([]*redis.SliceCmd, len(names))
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			cmds[i] = p.HMGet(ctx, at.row(name), rowFields...)
		}
		return nil
	})
	cancel() // before the consumer's code runs, which may take its time
	for i, cmd := range cmds {
		slot, ok := parseName(names[i])
		stored, rowErr := decodeFields(cmd.Val())
		switch refused := unanswered(err, cmd.Err(), cmd.Val() != nil); {
		case refused != nil:
			yield(Slot{}, rowEntry{err: redisError(refused)})
			return false
		case cmd.Err() != nil && !redis.HasErrorPrefix(cmd.Err(), "WRONGTYPE"):
			yield(Slot{}, rowEntry{err: firstError(err, cmd.Err())})
			return false
		case cmd.Err() != nil:
			rowErr = redisError(cmd.Err())
		case errors.Is(rowErr, ErrNotFound):
			rowErr = errGone
		}
		if !ok {
			continue
		}
		if !yield(slot, rowEntry{stored, rowErr}) {
			return false
		}
	}
	return true
}

func (e *redisEngine) due(ctx context.Context, now int64, limit int) ([]Slot, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var (
		found [shards]*redis.ZSliceCmd
		marks [shards]*redis.StringCmd
	)
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for n := range shards {
			found[n] = p.ZRangeByScoreWithScores(ctx, shard(n).index(),
				&redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(now, 10), Count: int64(limit)})
			marks[n] = p.Get(ctx, shard(n).mark())
		}
		return nil
	})
	if err := firstError(err); err != nil {
		return nil, err
	}
	var all []redis.Z
	for n := range shards {
		if err := firstError(found[n].Err(), marks[n].Err()); err != nil {
			return nil, err
		}
		if marks[n].Val() != e.id {
			return nil, errEmptied
		}
		all = append(all, found[n].Val()...)
	}
	slices.SortStableFunc(all, func(a, b redis.Z) int { return cmp.Compare(a.Score, b.Score) })
	var slots []Slot
	for _, z := range all[:min(limit, len(all))] {
		if name, is := z.Member.(string); is && !math.IsInf(z.Score, 0) {
			if slot, ok := parseName(name); ok {
				slots = append(slots, slot)
			}
		}
	}
	return slots, nil
}

// decodeFields reads a row from the answer of HMGET with rowFields; ErrNotFound if there is no row.
func decodeFields(values []any) (row, error) {
	var fields [6]string
	missing := 0
	for i := range fields {
		value, is := any(nil), false
		if i < len(values) {
			value = values[i]
		}
		if fields[i], is = value.(string); !is {
			missing++
		}
	}
	if missing == len(fields) {
		return row{}, ErrNotFound
	}
	var numbers [3]int64
	for i := range numbers {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			missing++
		}
		numbers[i] = n
	}
	if missing > 0 || fields[4] != "0" && fields[4] != "1" {
		return row{}, &UnreadableError{Stored: malformed, Reason: "its row is malformed"}
	}
	return row{
		version: Version{GrantID(fields[0]), numbers[0], numbers[1]},
		due:     numbers[2],
		dead:    fields[4] == "1",
		sealed:  []byte(fields[5]),
	}, nil
}
