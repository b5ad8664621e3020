package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// maxKey bounds what is hashed for a request that claims a key.
const maxKey = 512

// keyring finds callers by key: by the first bytes of the key's SHA-256, and then in constant time by all of it. A digest's
// beginning tells nothing of a key, so the look-up need not hide it.
type keyring map[uint64][]*caller

func (k keyring) add(c *caller) bool {
	if k.find(c.digest) != nil {
		return false
	}
	at := binary.NativeEndian.Uint64(c.digest[:])
	k[at] = append(k[at], c)
	return true
}

func (k keyring) find(digest [sha256.Size]byte) *caller {
	for _, c := range k[binary.NativeEndian.Uint64(digest[:])] {
		if subtle.ConstantTimeCompare(c.digest[:], digest[:]) == 1 {
			return c
		}
	}
	return nil
}

// byBasic takes the key as password or, as some SDKs send it, as user (RFC 7617).
func (k keyring) byBasic(credentials string, now time.Time) *caller {
	decoded, err := base64.StdEncoding.DecodeString(credentials)
	if err != nil {
		return nil
	}
	user, password, _ := strings.Cut(string(decoded), ":")
	if c := k.byKey(password, now); c != nil {
		return c
	}
	return k.byKey(user, now)
}

func (k keyring) byKey(key string, now time.Time) *caller {
	if key == "" || len(key) > maxKey {
		return nil
	}
	return k.byDigest(digestOf(key), now)
}

// byDigest returns whose key it is, or nil: a key past its end proves nothing.
func (k keyring) byDigest(digest [sha256.Size]byte, now time.Time) *caller {
	c := k.find(digest)
	if c == nil || c.ended(now) {
		return nil
	}
	return c
}

// digestOf hashes without putting the key on the heap.
func digestOf(key string) [sha256.Size]byte {
	var buf [maxKey]byte
	return sha256.Sum256(buf[:copy(buf[:], key)])
}
