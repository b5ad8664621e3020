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
	return onConnection(fs, args, std, func(a *api, integration, org string) error {
		if *expires <= 0 {
			return usagef("-expires must be positive")
		}
		var link struct{ URL string }
		path := connectionPath(integration, org) + "/connect-link"
		if err := a.call(ctx, http.MethodPost, path, map[string]string{"expires_in": expires.String()}, &link); err != nil {
			return err
		}
		_, err := fmt.Fprintln(std.out, link.URL)
		return err
	})
}
