package main

import (
	"context"
	"fmt"
	"net/http"
)

// runDisconnect forgets one connection.
func runDisconnect(ctx context.Context, args []string, std stdio) error {
	return onConnection(newFlags("disconnect"), args, std, func(a *api, integration, org string) error {
		if err := a.call(ctx, http.MethodDelete, connectionPath(integration, org), nil, nil); err != nil {
			return err
		}
		_, err := fmt.Fprintf(std.out, "%s %s: disconnected\n", integration, org)
		return err
	})
}
