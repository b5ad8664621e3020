package tokenstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// noteRun is the beginning of a script: it compares the server's run_id with the one noted beside the shard's mark, and
// notes since when it is another, in ms of the server's clock: the server was restarted or a replica took over, and lost
// perhaps what was acknowledged before. 0: it is the one that made the store. A note that is gone was lost with the rest. A
// server that tells no run_id (some managed services) is taken for the same for ever.
const noteRun = `
local function sinceRun(key, now)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  local noted, since = string.match(redis.call('GET', key) or '', '^(%w*):(%d+)$')
  if noted == run then return tonumber(since) end
  redis.call('SET', key, run .. ':' .. string.format('%.0f', now))
  return now
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

// acquireScript answers with the fence, for how many ms the server has been the one that it is (-1: always) and its time in
// ms. KEYS: mark, lease, fence, run. ARGV: id, owner, ttl in ms. A lease that is ours already was given by an earlier try
// whose reply was lost. A fence is at least the server's time, so that it rises even after a failover that has lost the last
// one.
var acquireScript = redis.NewScript(noteRun + `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'emptied'} end
local since = sinceRun(KEYS[4], now)
local age = since > 0 and math.max(0, now - since) or -1
local function answer(fence) return {fence, string.format('%.0f', age), string.format('%.0f', now)} end
local held = redis.call('GET', KEYS[2])
if held then
  local fence, owner = string.match(held, '^(%d+):(.*)$')
  if owner == ARGV[2] then return answer(fence) end
  return {'no'}
end
local fence = math.max(tonumber(redis.call('GET', KEYS[3]) or '0') + 1, now)
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[3], fence)
redis.call('SET', KEYS[2], fence .. ':' .. ARGV[2], 'PX', ARGV[3])
return answer(fence)`)

// renewScript and releaseScript act on a lease that is ours. KEYS: mark, lease. ARGV: id, fence:owner, ttl in ms.
var (
	renewScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'no' end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 'ok'`)
	releaseScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
return 'ok'`)
)

func (e *redisEngine) Acquire(ctx context.Context, slot Slot, ttl time.Duration) (Lease, error) {
	at, name := locate(slot)
	lease := Lease{Slot: slot, Owner: rand.Text(), Expires: time.Now().Add(ttl)}
	sent := e.clock.now()
	answers, err := e.runStrings(ctx, acquireScript, []string{at.mark(), at.lease(name), at.fence(), at.run()},
		e.id, lease.Owner, ttlMilli(ttl))
	received := e.clock.now()
	switch {
	case err != nil:
		return Lease{}, err
	case len(answers) == 1 && answers[0] == answerEmptied:
		return Lease{}, errEmptied
	case len(answers) == 1 && answers[0] == answerNo:
		return Lease{}, ErrHeld
	case len(answers) != 3:
		return Lease{}, errAnswer
	}
	var numbers [3]int64
	for i, answer := range answers {
		if numbers[i], err = strconv.ParseInt(answer, 10, 64); err != nil {
			return Lease{}, errAnswer
		}
	}
	lease.Fence = numbers[0]
	if age := numbers[1]; age >= 0 { // no clocks are compared; counting back from the reply is on the safe side
		lease.Since = received.Add(-time.Duration(age) * time.Millisecond)
	}
	if err := e.clock.check(time.UnixMilli(numbers[2]), sent, received); err != nil {
		_ = e.Release(context.WithoutCancel(ctx), lease) // it ends by itself
		return Lease{}, err
	}
	return lease, nil
}

// errAnswer is an answer that no script of ours gives.
var errAnswer = fmt.Errorf("%w: redis answers a script as it never does", ErrUnavailable)

func (e *redisEngine) Renew(ctx context.Context, lease Lease, ttl time.Duration) (Lease, error) {
	at, name := locate(lease.Slot)
	expires := time.Now().Add(ttl)
	answer, err := e.run(ctx, renewScript, []string{at.mark(), at.lease(name)}, e.id, leaseValue(lease), ttlMilli(ttl))
	if err != nil {
		return Lease{}, err
	}
	if answer == answerNo {
		return Lease{}, ErrHeld
	}
	lease.Expires = expires
	return lease, nil
}

func (e *redisEngine) Release(ctx context.Context, lease Lease) error {
	at, name := locate(lease.Slot)
	_, err := e.run(ctx, releaseScript, []string{at.mark(), at.lease(name)}, e.id, leaseValue(lease))
	return err
}

func leaseValue(lease Lease) string { return strconv.FormatInt(lease.Fence, 10) + ":" + lease.Owner }

// ttlMilli rounds up: Redis must not give a lease away before its holder counts it as expired.
func ttlMilli(ttl time.Duration) int64 { return max(1, (ttl + time.Millisecond - 1).Milliseconds()) }
