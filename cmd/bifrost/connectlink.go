package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// runConnectLink prints a URL that connects one org to one integration, once.
func runConnectLink(ctx context.Context, args []string, std stdio) error {
	fs := newFlags("connect-link")
	expires := fs.Duration("expires", 24*time.Hour, "`life` of the link")
	connect := apiFlags(fs, std)
	names, err := parse(fs, args, std, "NAME", "ORG")
	if err != nil {
		return err
	}
	if *expires <= 0 {
		return usagef("-expires must be positive")
	}
	api, err := connect()
	if err != nil {
		return err
	}
	var link struct{ URL string }
	path := connectionPath(names[0], names[1]) + "/connect-link"
	if err := api.call(ctx, http.MethodPost, path, map[string]string{"expires_in": expires.String()}, &link); err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, link.URL)
	return err
}
