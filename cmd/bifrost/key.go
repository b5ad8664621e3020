package main

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// runKeyNew prints a key and nothing else on stdout, so that `bifrost key new > FILE` makes a file for a caller's key or for
// encryption_keys. Its SHA-256, which is all that a caller's entry needs to hold, goes to stderr.
func runKeyNew(_ context.Context, args []string, std stdio) error {
	if _, err := parse(newFlags("key new"), args, std); err != nil {
		return err
	}
	key := tokenstore.NewKey()
	if _, err := fmt.Fprintln(std.out, key); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.err, "the key's SHA-256, which a caller in the configuration can have instead of the key:\nkey_sha256: %x\n", sha256.Sum256([]byte(key)))
	return err
}
