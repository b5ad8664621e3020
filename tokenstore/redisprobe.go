package tokenstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// errForbidden says that Redis knows us and refuses: trying again helps nobody.
var errForbidden = errors.New("redis refuses the user: check its password and its rights")

// forbidden makes errForbidden of a refusal.
func forbidden(err error) error {
	for _, code := range []string{"NOPERM", "WRONGPASS", "NOAUTH"} {
		if redis.HasErrorPrefix(err, code) {
			return fmt.Errorf("%w: %s", errForbidden, code)
		}
	}
	return err
}

// probe does on keys of its own, on every server, whatever the store will do, so that a missing right shows at the start
// and by its name instead of during a refresh. What else goes wrong (a full disk, a slot that moves) is for others to tell.
func (e *redisEngine) probe(ctx context.Context) error {
	all, err := e.masters(ctx)
	if err != nil {
		return err
	}
	var missing []string
	for _, m := range all {
		names, err := e.probeOne(ctx, m)
		if err != nil {
			return err
		}
		missing = append(missing, names...)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%w: it may not %s on keys and channels bifrost:*", errForbidden, strings.Join(slices.Compact(missing), ", "))
	}
	return nil
}

// probeLife is when Redis forgets a probe that was cut off.
const probeLife = time.Minute

// probeOne returns the names of the forbidden commands.
func (e *redisEngine) probeOne(ctx context.Context, m master) (missing []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	name := "probe:" + rand.Text()
	mark, row, index := m.at.key(name+":id"), m.at.key(name+":r"), m.at.key(name+":due")
	var greeted, marked *redis.StatusCmd
	var first, second *redis.Cmd
	cmds, err := m.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		greeted = p.Ping(ctx)
		p.Time(ctx)
		p.Info(ctx, "server")
		marked = p.Set(ctx, mark, name, probeLife)
		p.Get(ctx, mark)
		p.Exists(ctx, mark)
		p.EvalSha(ctx, strings.Repeat("0", 40), nil)
		swap := func(sealed string) *redis.Cmd {
			return swapScript.Eval(ctx, p, []string{mark, row, index}, name, name, "", 0, 0, name, 1, 1, 1, "0", sealed, 0, feedChannel)
		}
		first, second = swap("first"), swap("second")
		p.HSet(ctx, row, "f", "1")
		p.HMGet(ctx, row, "f")
		p.Persist(ctx, row)
		p.PExpire(ctx, row, probeLife)
		p.ZAdd(ctx, index, redis.Z{Score: 1, Member: name})
		p.PExpire(ctx, index, probeLife)
		p.ZScore(ctx, index, name)
		p.ZRange(ctx, index, 0, -1)
		p.ZRangeByScore(ctx, index, &redis.ZRangeBy{Min: "-inf", Max: "0"})
		p.ZRem(ctx, index, name)
		p.Publish(ctx, feedChannel, name) // no name of a slot
		if e.replicas.wanted > 0 {
			p.Do(ctx, "WAIT", 0, 1)
		}
		p.Del(ctx, mark, row, index)
		return nil
	})
	if _, answered := errors.AsType[redis.Error](greeted.Err()); greeted.Err() != nil && !answered {
		return nil, greeted.Err()
	}
	if err := unanswered(err, greeted.Err(), greeted.Val() != ""); redis.HasErrorPrefix(err, "NOPERM") {
		return nil, fmt.Errorf("%w: it may not choose a database (select), or name its client (client|setname), as the URL wants it", errForbidden)
	} else if err != nil {
		return nil, err
	}
	for _, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOPERM") {
			missing = append(missing, cmd.Name())
		}
	}
	if redis.HasErrorPrefix(e.probeFeed(ctx, m), "NOPERM") {
		missing = append(missing, "subscribe")
	}
	if one, err1 := first.Text(); len(missing) == 0 && marked.Err() == nil && err1 == nil {
		if two, err2 := second.Text(); one != "ok" || err2 == nil && two != answerNo {
			return nil, errAnswer
		}
	}
	return missing, nil
}

// probeFeed subscribes and returns the refusal.
func (e *redisEngine) probeFeed(ctx context.Context, m master) error {
	sub := m.Subscribe(ctx)
	defer func() { _ = sub.Close() }() // it only says that it was closed before
	if err := sub.Subscribe(ctx, feedChannel); err != nil {
		return err
	}
	_, err := sub.ReceiveTimeout(ctx, redisTimeout)
	return err
}
