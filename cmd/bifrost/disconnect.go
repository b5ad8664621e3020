package main

import (
	"context"
	"fmt"
	"net/http"
)

// runDisconnect forgets one connection.
func runDisconnect(ctx context.Context, args []string, std stdio) error {
	fs := newFlags("disconnect")
	connect := apiFlags(fs, std)
	names, err := parse(fs, args, std, "NAME", "ORG")
	if err != nil {
		return err
	}
	api, err := connect()
	if err != nil {
		return err
	}
	if err := api.call(ctx, http.MethodDelete, connectionPath(names[0], names[1]), nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s %s: disconnected\n", names[0], names[1])
	return err
}
