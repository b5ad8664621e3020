package tokenstore

import (
	"encoding/base64"
	"hash/fnv"
	"strconv"
	"strings"
)

// shards is how many hash tags the keys are spread over. All keys of a Slot, and the index of all Slots of its shard, share
// one tag: one script changes them together, in a Cluster too, and a walk over all shards finds every Slot without SCAN. It
// can never change: it is part of every key.
const shards = 64

// shard names the keys of one shard. No byte of a caller's stands in a key outside base64url.
type shard int

func (s shard) key(rest string) string { return "bifrost:{" + strconv.Itoa(int(s)) + "}:" + rest }

func (s shard) mark() string             { return s.key("id") }        // string: the store's id
func (s shard) run() string              { return s.key("run") }       // string: the server's run_id, and since when it is that one
func (s shard) index() string            { return s.key("due") }       // sorted set: every connection's name by due time
func (s shard) fence() string            { return s.key("fence") }     // integer: the last fence
func (s shard) row(name string) string   { return s.key("r:" + name) } // hash: one connection or tombstone
func (s shard) lease(name string) string { return s.key("l:" + name) } // string: fence and owner; expires
func (s shard) notes(name string) string { return s.key("n:" + name) } // sorted set: a slot's entries, the newest last; expires
func (s shard) shelf(id [32]byte) string { // string: a sealed value; expires
	return s.key("s:" + base64.RawURLEncoding.EncodeToString(id[:]))
}

// storeKey is a hash: id, check and complete; see redisEngine.begin.
var storeKey = shard(0).key("store")

// feedChannel carries the names of changed slots.
const feedChannel = "bifrost:changed"

// locate returns a slot's shard and its name within it. Names are injective: base64url has no dot.
func locate(slot Slot) (shard, string) {
	h := fnv.New32a()
	_, _ = h.Write(slotKey(slot)) // never fails
	enc := base64.RawURLEncoding
	return shard(h.Sum32() % shards), enc.EncodeToString([]byte(slot.Integration)) + "." + enc.EncodeToString([]byte(slot.Org))
}

// parseName undoes the name of locate.
func parseName(name string) (Slot, bool) {
	integration, org, found := strings.Cut(name, ".")
	i, err1 := base64.RawURLEncoding.DecodeString(integration)
	o, err2 := base64.RawURLEncoding.DecodeString(org)
	if !found || err1 != nil || err2 != nil {
		return Slot{}, false
	}
	return Slot{string(i), Org(o)}, true
}

// nameOf tells whether a name is of one of the integration's connections.
func nameOf(name, integration string) bool {
	encoded, _, _ := strings.Cut(name, ".")
	return encoded == base64.RawURLEncoding.EncodeToString([]byte(integration))
}

// locateShelf spreads shelved values by their hash.
func locateShelf(id [32]byte) shard { return shard(id[0] % shards) }
