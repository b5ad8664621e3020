package main

import (
	"context"
	"fmt"
	"net/http"
)

// runRefresh refreshes one connection now and prints how it is.
func runRefresh(ctx context.Context, args []string, std stdio) error {
	return onConnection(newFlags("refresh"), args, std, func(a *api, integration, org string) error {
		var c connection
		if err := a.call(ctx, http.MethodPost, connectionPath(integration, org)+"/refresh", nil, &c); err != nil {
			return err
		}
		_, err := fmt.Fprintf(std.out, "%s %s: %s, expires %s\n", integration, c.Org, c.Status, moment(c.ExpiresAt))
		return err
	})
}
