package tokenstore

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
)

// keySize is the only accepted length of a Key: AES-256.
const keySize = 32

// Key is one encryption key: 32 bytes. It prints as its ID alone.
type Key struct {
	ID    string // 1 to 64 bytes; stands in the clear beside everything that the key sealed
	Bytes []byte
}

// Format prints the ID and [redacted] for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("key " + k.ID + " " + redacted)) } // fmt ignores write errors too

// LogValue logs the ID alone.
func (k Key) LogValue() slog.Value { return slog.StringValue("key " + k.ID + " " + redacted) }

// MarshalJSON writes "[redacted]": a key file is written by [NewKey] and [LoadOrCreateKeyFile] alone.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// NewKey makes random key material as it stands in a key file: 32 bytes in base64.
func NewKey() string {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails: crypto/rand crashes the program rather than return an error
	return base64.StdEncoding.EncodeToString(key)
}

// ParseKey reads key material as [NewKey] writes it; space around it is ignored. The error never contains the material.
func ParseKey(text []byte) ([]byte, error) {
	text = bytes.TrimSpace(text)
	key := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(key, text)
	if err != nil {
		return nil, errors.New("the key is not base64")
	}
	if n != keySize {
		return nil, fmt.Errorf("the key has %d bytes, not %d", n, keySize)
	}
	return key[:n], nil
}

// Keyring seals with its first key and opens with all. From every key it derives one key per purpose (HKDF, RFC 5869), so
// that what was sealed for one purpose cannot open as another. It is immutable.
type Keyring struct {
	ids    []string                           // newest first: the first seals
	first  string                             // the ID of the key that seals
	aeads  map[string]map[purpose]cipher.AEAD // by key ID
	prints map[string][]byte                  // by key ID: derived from the key, equal for equal keys alone
}

// IDs returns the IDs of the keys, newest first.
func (k *Keyring) IDs() []string { return slices.Clone(k.ids) }

// NewKeyring returns a ring of keys, newest first. It refuses an empty ring, a key that is not 32 bytes, an ID that is
// empty, longer than 64 bytes or there twice, and the same bytes under two IDs.
func NewKeyring(keys ...Key) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("tokenstore: no encryption key")
	}
	ring := &Keyring{
		first:  keys[0].ID,
		aeads:  make(map[string]map[purpose]cipher.AEAD, len(keys)),
		prints: make(map[string][]byte, len(keys)),
	}
	for i, key := range keys {
		if len(key.ID) == 0 || len(key.ID) > 64 {
			return nil, fmt.Errorf("tokenstore: encryption key %d: the id must have 1 to 64 bytes", i+1)
		}
		if len(key.Bytes) != keySize {
			return nil, fmt.Errorf("tokenstore: encryption key %q has %d bytes, not %d", key.ID, len(key.Bytes), keySize)
		}
		if ring.aeads[key.ID] != nil {
			return nil, fmt.Errorf("tokenstore: encryption key %q is there twice", key.ID)
		}
		for _, earlier := range keys[:i] {
			if bytes.Equal(earlier.Bytes, key.Bytes) {
				return nil, fmt.Errorf("tokenstore: encryption keys %q and %q are the same key", earlier.ID, key.ID)
			}
		}
		aeads, err := derive(key.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tokenstore: encryption key %q: %w", key.ID, err)
		}
		if ring.prints[key.ID], err = subkey(key.Bytes, "print"); err != nil {
			return nil, fmt.Errorf("tokenstore: encryption key %q: %w", key.ID, err)
		}
		ring.ids, ring.aeads[key.ID] = append(ring.ids, key.ID), aeads
	}
	return ring, nil
}

func derive(secret []byte) (map[purpose]cipher.AEAD, error) {
	aeads := make(map[purpose]cipher.AEAD, len(purposes))
	for _, p := range purposes {
		sub, err := subkey(secret, string(p))
		if err != nil {
			return nil, err
		}
		block, err := aes.NewCipher(sub)
		if err != nil {
			return nil, err
		}
		// A random 96-bit nonce goes in front of each ciphertext: safe for 2^32 writes per key (NIST SP 800-38D, 8.3).
		if aeads[p], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, err
		}
	}
	return aeads, nil
}

// subkey derives what is used for one thing only.
func subkey(secret []byte, use string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "bifrost/1/"+use, keySize)
}
