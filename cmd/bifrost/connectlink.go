package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// runConnectLink prints a URL that connects one org to one integration, once, or makes all such URLs useless.
func runConnectLink(ctx context.Context, args []string, std stdio) error {
	fs := newFlags("connect-link")
	expires := fs.Duration("expires", 24*time.Hour, "`life` of the link")
	revoke := fs.Bool("revoke", false, "make no link, and revoke all open ones of this connection")
	return onConnection(fs, args, std, func(a *api, integration, org string) error {
		if *revoke {
			return revokeLinks(ctx, a, std, integration, org)
		}
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

// revokeLinks revokes the open links of a connection and says how many it knew of; those of Connect buttons end too.
func revokeLinks(ctx context.Context, a *api, std stdio, integration, org string) error {
	var open struct{ Links []struct{} }
	path := connectionPath(integration, org) + "/connect-links"
	if err := a.call(ctx, http.MethodGet, path, nil, &open); err != nil {
		return err
	}
	if err := a.call(ctx, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.out, "%s %s: connect links revoked: %d\n", integration, org, len(open.Links))
	return err
}
