package main

import (
	"context"
	"fmt"
	"net/http"
)

// runRefresh refreshes one connection now and prints how it is.
func runRefresh(ctx context.Context, args []string, std stdio) error {
	fs := newFlags("refresh")
	connect := apiFlags(fs, std)
	names, err := parse(fs, args, std, "NAME", "ORG")
	if err != nil {
		return err
	}
	api, err := connect()
	if err != nil {
		return err
	}
	var c connection
	if err := api.call(ctx, http.MethodPost, connectionPath(names[0], names[1])+"/refresh", nil, &c); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s %s: %s, expires %s\n", names[0], c.Org, c.Status, moment(c.ExpiresAt))
	return err
}
