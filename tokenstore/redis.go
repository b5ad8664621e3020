package tokenstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Redis is the shared store: a single server, Sentinel or Cluster. It implements Backend. Every method returns within about
// half a second, with ErrUnavailable if Redis is down, slow, loading, read-only, out of memory, or emptied behind its back.
type Redis struct {
	Backend
	vault  *vault // the Backend
	engine *redisEngine
	sealer *sealer
	care   *care
}

var _ Backend = (*Redis)(nil)

// RedisConfig says where a Redis is and how it is sealed.
type RedisConfig struct {
	URL     string                // see NewRedis
	Keys    *Keyring              // required
	Metrics prometheus.Registerer // nil: no metrics
	Log     *slog.Logger          // nil: no log
	// WaitReplicas is how many replicas shall have a write before it counts as done; 0: none. They are waited for 100 ms at
	// most: after it the write stands all the same, and is counted and logged.
	WaitReplicas int
	// AcceptDataLoss opens a Redis that keeps nothing over a restart, AllowInsecure one on another machine without TLS or
	// without a password. Both are refused otherwise.
	AcceptDataLoss, AllowInsecure bool
	// MustExist says that there is a store already: NewRedis does not make one.
	MustExist bool
}

// NewRedis connects to the store and, the first time, marks it as ours. It returns ErrUnavailable if Redis does not answer
// at once (the caller may try again) and ErrWrongKey if no key of the ring opens the store. Any other error says what is
// wrong with the Redis: it refuses the user or a command, evicts keys when it is full, or what RedisConfig may accept. What
// becomes wrong later is logged, see also Problems. The URL has one of the forms
//
//	redis://[user:password@]host:port[/db]                                   a single server
//	redis://[user:password@]host:port?cluster=true[&addr=host:port…]         Cluster
//	redis://[user:password@]host:port[/db]?master_name=NAME[&addr=host:port…] Sentinel
//
// or the same with rediss:// for TLS. With Sentinel, host, addr, user and password are the Sentinels'; the servers' own
// credentials are the options username and password. Options for all: protocol, client_name, pool_size, min_idle_conns,
// max_idle_conns, max_active_conns, conn_max_idle_time, conn_max_lifetime. Anything else is refused, skip_verify above all.
// No error contains a part of the URL but an option's name.
//
// The user needs the keys and channels bifrost:* and the commands get set del exists hset hmget pexpire persist zadd zrem zscore
// zrange zrangebyscore eval evalsha time info publish subscribe ping; with Cluster also cluster|slots, command and asking, with
// WaitReplicas wait, with a database number select, with client_name client|setname, for Rekey scan, and config|get if Redis is
// persisted by snapshots alone.
func NewRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	if cfg.Keys == nil {
		return nil, errors.New("tokenstore: a redis store needs keys")
	}
	client, err := newRedisClient(cfg.URL, cfg.AllowInsecure)
	if err != nil {
		return nil, fmt.Errorf("tokenstore: %w", err)
	}
	e := &redisEngine{client: client, acceptDataLoss: cfg.AcceptDataLoss, mustExist: cfg.MustExist, replicas: replicas{wanted: cfg.WaitReplicas}}
	found, err := e.start(ctx, cfg.Keys)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	log := cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	measured := newRedisMetrics(cfg.Metrics)
	e.clock = clock{now: time.Now, offset: measured.offset, log: log}
	e.replicas = replicas{wanted: cfg.WaitReplicas, lacking: measured.unreplicated, log: log}
	v := newVault(e, cfg.Keys, cfg.Metrics)
	r := &Redis{Backend: v, vault: v, engine: e, sealer: newSealer()}
	r.told(ctx)
	r.care = startCare(e, log, measured.problem, found, r.told)
	return r, nil
}

// start finds out whether the Redis can be trusted with connections, and which store it is.
func (e *redisEngine) start(ctx context.Context, keys *Keyring) (map[problem]string, error) {
	err := e.probe(ctx)
	var found map[problem]string
	if err == nil {
		found, err = e.inspect(ctx)
	}
	if err == nil {
		if err := refuse(found); err != nil {
			return nil, fmt.Errorf("tokenstore: open redis: %w", err)
		}
		err = e.begin(ctx, keys)
	}
	switch err := forbidden(err); {
	case err == nil:
		return found, nil
	case errors.Is(err, ErrWrongKey), errors.Is(err, errForbidden), errors.Is(err, errNoStore):
		return nil, fmt.Errorf("tokenstore: open redis: %w", err)
	default:
		return nil, wrap("open redis", Slot{}, redisError(err))
	}
}

// Close closes the connections. Every later call is ErrUnavailable.
func (r *Redis) Close() error {
	r.care.stop()
	r.farewell()
	return r.engine.client.Close()
}

// Problems names what endangers the connections in this Redis, as found within the last minute, sorted: eviction,
// persistence, snapshots, disk, replication, emptied, unverifiable.
func (r *Redis) Problems() []string { return r.care.names() }

// ID returns the store's id: random, made with the store, the same for every replica.
func (r *Redis) ID() string { return r.engine.id }

// Ping says whether every part of the store answers and is still the one that NewRedis found.
func (r *Redis) Ping(ctx context.Context) error {
	marks, err := r.engine.marks(ctx)
	for _, mark := range marks {
		if err == nil && mark != r.engine.id {
			err = errEmptied
		}
	}
	if err != nil {
		return wrap("ping", Slot{}, redisError(err))
	}
	return nil
}

// errEmptied is what every operation returns once the store has lost its mark. An org whose record is gone must not look as
// if it had never connected: its requests would use the global connection.
var errEmptied = fmt.Errorf("%w: redis was emptied or replaced: restore its data, or restart bifrost to begin anew without it",
	ErrUnavailable)

// errPartial says that a store is not whole at start-up.
var errPartial = fmt.Errorf("%w: redis holds only a part of a store: restore its data, or empty it to begin anew without it",
	ErrUnavailable)

// beginScript offers an id and a key-check record for a store and returns what it has: the first offer stays.
var beginScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'id', ARGV[1], 'check', ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'id', 'check', 'complete')`)

// begin finds out which store this is, or makes one: an id and a key-check record in one place, and the id as a mark in
// every shard, for each shard may be on another server and be emptied alone. "complete" tells a store that lost marks from
// one whose making was interrupted.
func (e *redisEngine) begin(ctx context.Context, keys *Keyring) error {
	if e.mustExist {
		if err := e.exists(ctx); err != nil {
			return err
		}
	}
	offer := rand.Text()
	found, err := e.runStrings(ctx, beginScript, []string{storeKey}, offer, keys.seal(purposeCheck, []byte(offer), nil))
	if err != nil {
		return err
	}
	if len(found) != 3 || found[0] == "" {
		return errPartial
	}
	e.id = found[0]
	if _, err := keys.open(purposeCheck, []byte(e.id), []byte(found[1])); err != nil {
		return ErrWrongKey
	}
	if found[2] == "" {
		if err := e.mark(ctx); err != nil {
			return err
		}
	}
	marks, err := e.marks(ctx)
	if err != nil {
		return err
	}
	for _, mark := range marks {
		if mark != e.id {
			return errPartial
		}
	}
	if found[2] == "" {
		ctx, cancel := context.WithTimeout(ctx, redisTimeout)
		defer cancel()
		return e.client.HSet(ctx, storeKey, "complete", "1").Err()
	}
	return nil
}

// errNoStore says that a Redis holds no store of ours.
var errNoStore = errors.New("there is no store in this redis: is it the right one, and the right database?")

// exists returns errNoStore if there is no store.
func (e *redisEngine) exists(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	n, err := e.client.Exists(ctx, storeKey).Result()
	if err == nil && n == 0 {
		err = errNoStore
	}
	return err
}

// markScript marks a shard that has no mark, and notes which server made it. KEYS: mark, run. ARGV: id.
var markScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('SET', KEYS[1], ARGV[1])
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
  redis.call('SET', KEYS[2], run .. ':0')
end
return 'ok'`)

// mark marks every shard.
func (e *redisEngine) mark(ctx context.Context) error {
	for n := range shards {
		if _, err := e.run(ctx, markScript, []string{shard(n).mark(), shard(n).run()}, e.id); err != nil {
			return err
		}
	}
	return nil
}

// marks returns the id that each shard has, empty for none.
func (e *redisEngine) marks(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	cmds := make([]*redis.StringCmd, shards)
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for n := range shards {
			cmds[n] = p.Get(ctx, shard(n).mark())
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	marks := make([]string, shards)
	for n, cmd := range cmds {
		if marks[n], err = cmd.Result(); err != nil && !errors.Is(err, redis.Nil) {
			return nil, err
		}
	}
	return marks, nil
}
