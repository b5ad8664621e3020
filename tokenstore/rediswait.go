package tokenstore

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// replicaWait bounds the wait for replicas: what is written stands without them, and the caller has only redisTimeout.
const replicaWait = 100 * time.Millisecond

// replicas waits until replicas have what was written.
type replicas struct {
	wanted  int // 0: nothing is waited for
	lacking prometheus.Counter
	log     *slog.Logger
	told    rarely
}

// missing tells of a write that fewer replicas have acknowledged than wanted.
func (r *replicas) missing(acknowledged int64) {
	r.lacking.Inc()
	if r.told.now() {
		r.log.Error("redis's replicas did not acknowledge a write in time: it stands, but a failover now would lose it",
			"acknowledged", acknowledged, "wanted", r.wanted)
	}
}

// runReplicated is run, and waits afterwards until the wanted number of replicas has what the script wrote. That they do not
// is told, and no error: the write stands.
func (e *redisEngine) runReplicated(ctx context.Context, script *redis.Script, keys []string, args ...any) (string, error) {
	if e.replicas.wanted == 0 {
		return e.run(ctx, script, keys, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	answer, acknowledged, err := e.runAndWait(ctx, script.EvalSha, keys, args...)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		answer, acknowledged, err = e.runAndWait(ctx, script.Eval, keys, args...)
	}
	if _, clustered := e.client.(*redis.ClusterClient); clustered && err != nil {
		// The slot has moved, or the node is gone: this way finds it again, and knows nothing of replicas.
		acknowledged = 0
		answer, err = e.run(ctx, script, keys, args...)
	}
	switch {
	case err != nil:
		return "", redisError(err)
	case answer == answerEmptied:
		return "", errEmptied
	case answer != answerNo && acknowledged < int64(e.replicas.wanted):
		e.replicas.missing(acknowledged)
	}
	return answer, nil
}

// runAndWait sends a script and WAIT on one connection: WAIT waits for what its own connection has written.
func (e *redisEngine) runAndWait(ctx context.Context,
	eval func(context.Context, redis.Scripter, []string, ...any) *redis.Cmd, keys []string, args ...any) (string, int64, error) {
	node, err := e.master(ctx, keys[0])
	if err != nil {
		return "", 0, err
	}
	p := node.Pipeline()
	answer := eval(ctx, p, keys, args...)
	acknowledged := p.Do(ctx, "WAIT", e.replicas.wanted, replicaWait.Milliseconds())
	_, _ = p.Exec(ctx) // each command has its own error
	text, err := answer.Text()
	if err != nil {
		return "", 0, err
	}
	n, _ := acknowledged.Int64() // an error is as good as no replica
	return text, n, nil
}

// master returns the client of the server that has the key.
func (e *redisEngine) master(ctx context.Context, key string) (*redis.Client, error) {
	switch client := e.client.(type) {
	case *redis.ClusterClient:
		return client.MasterForKey(ctx, key)
	default:
		return client.(*redis.Client), nil // all else that newRedisClient makes
	}
}
