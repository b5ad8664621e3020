package tokenstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// acquireScript answers with the fence. KEYS: mark, lease, fence. ARGV: id, owner, ttl in ms. A lease that is ours already
// was given by an earlier try whose reply was lost. A fence is at least the server's time, so that it rises even after a
// failover that has lost the last one.
var acquireScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
local held = redis.call('GET', KEYS[2])
if held then
  local fence, owner = string.match(held, '^(%d+):(.*)$')
  if owner == ARGV[2] then return fence end
  return 'no'
end
local now = redis.call('TIME')
local fence = math.max(tonumber(redis.call('GET', KEYS[3]) or '0') + 1, now[1] * 1000 + math.floor(now[2] / 1000))
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[3], fence)
redis.call('SET', KEYS[2], fence .. ':' .. ARGV[2], 'PX', ARGV[3])
return fence`)

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
	answer, err := e.run(ctx, acquireScript, []string{at.mark(), at.lease(name), at.fence()}, e.id, lease.Owner, ttlMilli(ttl))
	if err != nil {
		return Lease{}, err
	}
	if answer == answerNo {
		return Lease{}, ErrHeld
	}
	if lease.Fence, err = strconv.ParseInt(answer, 10, 64); err != nil {
		return Lease{}, fmt.Errorf("%w: the fence is not a number", ErrUnavailable)
	}
	return lease, nil
}

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
