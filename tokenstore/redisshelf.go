package tokenstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// KEYS: mark, value. ARGV: id, sealed, life in ms.
var (
	putScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'ok'`)
	// takeScript answers with a list of at most one value, so that no value can look like another answer.
	takeScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'', 'emptied'} end
local value = redis.call('GET', KEYS[2])
if not value then return {} end
redis.call('DEL', KEYS[2])
return {value}`)
)

func (e *redisEngine) put(ctx context.Context, id [32]byte, sealed []byte, life time.Duration) error {
	at := locateShelf(id)
	_, err := e.run(ctx, putScript, []string{at.mark(), at.shelf(id)}, e.id, sealed, ttlMilli(life))
	return err
}

func (e *redisEngine) take(ctx context.Context, id [32]byte) ([]byte, error) {
	at := locateShelf(id)
	answers, err := e.runStrings(ctx, takeScript, []string{at.mark(), at.shelf(id)}, e.id)
	switch {
	case err != nil:
		return nil, err
	case len(answers) == 0:
		return nil, ErrNotFound
	case len(answers) == 2:
		return nil, errEmptied
	default:
		return []byte(answers[0]), nil
	}
}

func (e *redisEngine) peek(ctx context.Context, ids ...[32]byte) ([][]byte, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	cmds, marks := make([]*redis.StringCmd, len(ids)), make([]*redis.StringCmd, len(ids))
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			at := locateShelf(id)
			cmds[i], marks[i] = p.Get(ctx, at.shelf(id)), p.Get(ctx, at.mark())
		}
		return nil
	})
	if err := firstError(err); err != nil {
		return nil, err
	}
	values := make([][]byte, len(ids))
	for i, cmd := range cmds {
		if err := firstError(cmd.Err(), marks[i].Err()); err != nil {
			return nil, err
		}
		if marks[i].Val() != e.id {
			return nil, errEmptied
		}
		if cmd.Err() == nil {
			values[i] = []byte(cmd.Val())
		}
	}
	return values, nil
}
