package main

import (
	"context"
	"fmt"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// runKeyNew prints a key and nothing else, so that `bifrost key new > FILE` makes a file for encryption_keys.
func runKeyNew(_ context.Context, args []string, std stdio) error {
	if _, err := parse(newFlags("key new"), args, std); err != nil {
		return err
	}
	_, err := fmt.Fprintln(std.out, tokenstore.NewKey())
	return err
}
