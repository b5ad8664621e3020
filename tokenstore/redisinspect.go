package tokenstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// master is a server of the store, with one of the shards that it keeps.
type master struct {
	*redis.Client
	at shard
}

// masters returns every server that keeps a shard: one but for Cluster.
func (e *redisEngine) masters(ctx context.Context) ([]master, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var all []master
	for n := range shards {
		client, err := e.master(ctx, shard(n).mark())
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(all, func(m master) bool { return m.Client == client }) {
			all = append(all, master{client, shard(n)})
		}
	}
	return all, nil
}

// inspect asks every server whether it keeps what it acknowledges, and returns what speaks against it.
func (e *redisEngine) inspect(ctx context.Context) (map[problem]string, error) {
	all, err := e.masters(ctx)
	if err != nil {
		return nil, err
	}
	found := map[problem]string{}
	for _, m := range all {
		if err := e.inspectOne(ctx, m, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (e *redisEngine) inspectOne(ctx context.Context, m master, found map[problem]string) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	text, err := m.Info(ctx).Result() // without sections: old servers take one at most
	if err != nil {
		return err
	}
	info := parseInfo(text)
	if _, told := info["run_id"]; !told {
		found[problemUnverifiable] = "INFO has no run_id: a restart or failover that loses writes goes unnoticed"
	}
	inspectMemory(info, found)
	inspectReplication(info, e.replicas.wanted, found)
	return e.inspectDisk(ctx, m, info, found)
}

func inspectMemory(info map[string]string, found map[problem]string) {
	policy, told := info["maxmemory_policy"]
	switch {
	case !told:
		found[problemUnverifiable] = "INFO has no maxmemory_policy: make sure that it is noeviction"
	case policy != "noeviction" && info["maxmemory"] != "0":
		found[problemEviction] = "maxmemory-policy is " + policy + ": set it to noeviction, an evicted token is a lost connection"
	}
}

func inspectReplication(info map[string]string, wanted int, found map[problem]string) {
	if info["role"] == "slave" {
		found[problemReplication] = "it is a replica (master_link_status " + info["master_link_status"] + "): nothing can be written"
		return
	}
	if n, err := strconv.Atoi(info["connected_slaves"]); err == nil && n < wanted {
		found[problemReplication] = fmt.Sprintf("it has %d replicas, but writes wait for %d", n, wanted)
	}
}

func (e *redisEngine) inspectDisk(ctx context.Context, m master, info map[string]string, found map[problem]string) error {
	for _, last := range []string{"aof_last_write_status", "rdb_last_bgsave_status"} {
		if status, told := info[last]; told && status != "ok" {
			found[problemDisk] = last + " is not ok: is its disk full?"
		}
	}
	if info["aof_enabled"] == "1" || e.acceptDataLoss {
		return nil
	}
	saves, err := m.ConfigGet(ctx, "save").Result()
	_, answered := errors.AsType[redis.Error](err)
	switch {
	case err != nil && !answered:
		return err
	case err != nil || saves["save"] == "" && len(saves) == 0: // managed services forbid CONFIG
		found[problemUnverifiable] = "appendonly is off and CONFIG GET save is forbidden: make sure that it is persisted"
	case saves["save"] == "":
		found[problemPersistence] = "neither appendonly nor save is set: a restart would lose every connection"
	default:
		found[problemSnapshots] = "appendonly is off: a crash would lose the tokens since the last snapshot, set appendonly yes"
	}
	return nil
}

// parseInfo reads the lines "name:value" of INFO.
func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// refuse returns an error for what would end in lost connections: a new process does not start on it.
func refuse(found map[problem]string) error {
	if text, is := found[problemEviction]; is {
		return errors.New("redis would evict connections: its " + text)
	}
	if text, is := found[problemPersistence]; is {
		return errors.New("redis keeps nothing: " + text + "; store.redis.accept_data_loss: true starts nevertheless")
	}
	return nil
}

// noteScript notes in every shard which server keeps it, so that a lease which is taken long after a failover does not take
// it for a new one. KEYS: mark, run. ARGV: id.
const noteScript = noteRun + `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'emptied' end
sinceRun(KEYS[2], now)
return 'ok'`

// note runs noteScript in every shard; errEmptied if one of them has lost its mark.
func (e *redisEngine) note(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	cmds := make([]*redis.Cmd, shards)
	_, err := e.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for n := range shards {
			cmds[n] = p.Eval(ctx, noteScript, []string{shard(n).mark(), shard(n).run()}, e.id)
		}
		return nil
	})
	for _, cmd := range cmds {
		if answer, _ := cmd.Text(); answer == answerEmptied {
			return errEmptied
		}
	}
	return err
}
