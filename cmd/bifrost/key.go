package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
)

// runKeyNew prints 32 random bytes in base64 and nothing else, so that `bifrost key new > FILE` makes a file for encryption_keys.
func runKeyNew(_ context.Context, args []string, std stdio) error {
	if _, err := parse(newFlags("key new"), args, std); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	_, err := fmt.Fprintln(std.out, base64.StdEncoding.EncodeToString(key))
	return err
}
