package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// run runs a script (EVALSHA, EVAL where the server does not know it yet) that answers with a string.
func (e *redisEngine) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	answer, err := e.evaluate(ctx, script, keys, args...).Text()
	if err != nil {
		return "", redisError(err)
	}
	if answer == answerEmptied {
		return "", errEmptied
	}
	return answer, nil
}

// runStrings runs a script that answers with a list of strings; nil becomes empty.
func (e *redisEngine) runStrings(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	answers, err := e.evaluate(ctx, script, keys, args...).Slice()
	if err != nil {
		return nil, redisError(err)
	}
	texts := make([]string, len(answers))
	for i, answer := range answers {
		texts[i], _ = answer.(string)
	}
	return texts, nil
}

// moveRetry is how long a script waits for a slot of a Cluster that moves. The client by itself gives up before most have moved.
const moveRetry = 20 * time.Millisecond

// evaluate sends a script, again and again within ctx while its slot moves: a script that makes a key, as for every new lease,
// is not begun there (TRYAGAIN) before the slot has a new owner.
func (e *redisEngine) evaluate(ctx context.Context, script *redis.Script, keys []string, args ...any) *redis.Cmd {
	for {
		cmd := script.Run(ctx, e.client, keys, args...)
		if !redis.HasErrorPrefix(cmd.Err(), "TRYAGAIN") {
			return cmd
		}
		select {
		case <-time.After(moveRetry):
		case <-ctx.Done():
			return cmd
		}
	}
}

// firstError returns the first real error of a pipeline: redis.Nil is an answer.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, redis.Nil) {
			return redisError(err)
		}
	}
	return nil
}

// unanswered returns the error of a pipeline if a command of it has no answer and no error of its own: go-redis leaves it so
// when Redis refused the connection's greeting.
func unanswered(pipeline, own error, answered bool) error {
	if own == nil && !answered {
		return pipeline
	}
	return nil
}

// redisError makes ErrUnreadable of a key of the wrong type. Everything else that Redis or the network says makes the store
// unavailable: timeouts, LOADING, READONLY, OOM, CLUSTERDOWN, NOAUTH, NOPERM and what comes.
func redisError(err error) error {
	switch {
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrUnreadable):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return errSlow
	case redis.HasErrorPrefix(err, "WRONGTYPE"):
		return &UnreadableError{Stored: malformed, Reason: "its key holds something else"}
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

// errSlow stands for a deadline, which as a rule is ours: it must not look like the caller's.
var errSlow = fmt.Errorf("%w: redis does not answer in time", ErrUnavailable)
