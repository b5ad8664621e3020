package config

import (
	"errors"
	"strconv"
	"strings"
)

// Store says where connections are kept: File, or Redis if RedisURL is not empty.
type Store struct {
	File     string // default ./bifrost.db; empty with Redis
	RedisURL Secret // redis://, rediss://, or with Sentinel or Cluster parameters

	RedisWaitReplicas   int  // replicas that shall acknowledge a write; 0 (default): none
	RedisAcceptDataLoss bool // a Redis that keeps nothing over a restart is meant
	RedisAllowInsecure  bool // a Redis on another machine without TLS or without a password is meant
}

// Log configures the log on stderr.
type Log struct {
	Level    string // debug, info (default), warn, error
	Format   string // json (default), text
	Requests bool   // default true: one line per request
}

// Key is one encryption key: 32 bytes.
type Key struct {
	ID    string
	Bytes Secret // 32 raw bytes
}

func readStore(n, keys node) Store {
	o, _ := n.object()
	var s Store
	file, redis := o.at("file"), o.at("redis")
	set(file, &s.File, line)
	if redis.given() {
		readRedis(redis, &s)
		if file.given() {
			redis.problem("stands beside store.file: there is one store, remove one of them")
		}
		if !keys.lists() {
			keys.problem("is missing: with Redis every replica needs the same keys, `bifrost key new` makes one")
		}
	} else if !file.given() {
		s.File = "./bifrost.db"
	}
	o.close()
	return s
}

func readRedis(n node, s *Store) {
	o, _ := n.object()
	at := o.need("url")
	url, ok := at.secret()
	s.RedisURL = url
	set(o.at("wait_replicas"), &s.RedisWaitReplicas, fewReplicas)
	setBool(o.at("accept_data_loss"), &s.RedisAcceptDataLoss)
	setBool(o.at("allow_insecure"), &s.RedisAllowInsecure)
	if scheme, _, _ := strings.Cut(url.Reveal(), "://"); ok && scheme != "redis" && scheme != "rediss" {
		at.problem("must begin with redis:// or rediss://")
	} else if ok {
		if err := n.checkRedisURL(url.Reveal(), s.RedisAllowInsecure); err != nil {
			at.problem("%v", err)
		}
	}
	o.close()
}

func fewReplicas(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 9 {
		return 0, errors.New("must be a number from 0 to 9: how many replicas shall acknowledge a write")
	}
	return n, nil
}

func readLog(n node) Log {
	o, _ := n.object()
	l := Log{Level: "info", Format: "json", Requests: true}
	set(o.at("level"), &l.Level, oneOf("debug", "info", "warn", "error"))
	set(o.at("format"), &l.Format, oneOf("json", "text"))
	setBool(o.at("requests"), &l.Requests)
	o.close()
	return l
}

func readKeys(n node) []Key {
	var keys []Key
	ids, values := unique{}, unique{}
	for _, item := range n.items() {
		o, ok := item.object()
		if !ok {
			continue
		}
		var k Key
		id := o.need("id")
		if set(id, &k.ID, name) {
			ids.check(id, k.ID)
		}
		if s, ok := o.secret(); ok {
			raw, err := key32(s)
			if err != nil {
				o.problem("%v", err)
			} else {
				values.check(o.node, raw.Reveal())
			}
			k.Bytes = raw
		}
		o.close()
		keys = append(keys, k)
	}
	return keys
}

// unique finds values that may stand in the file once. It reports where the first stands, never what it is.
type unique map[string]node

func (u unique) check(n node, value string) {
	if first, ok := u[value]; ok {
		n.problem("is the same as %s on line %d: each needs its own", first.path, first.line)
		return
	}
	u[value] = n
}
