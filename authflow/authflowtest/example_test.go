package authflowtest_test

import (
	"context"
	"fmt"

	"golang.org/x/oauth2"

	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
)

// A refresh token that is redeemed twice costs the whole grant.
func Example() {
	p := authflowtest.NewProvider(authflowtest.Config{Refresh: authflowtest.OneTime})
	cfg := oauth2.Config{
		ClientID: p.ClientID(), ClientSecret: p.ClientSecret(),
		Endpoint: oauth2.Endpoint{TokenURL: p.TokenURL, AuthStyle: oauth2.AuthStyleInParams},
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, p.Client())
	grant := p.Issue("alice")
	for range 2 {
		_, err := cfg.TokenSource(ctx, &oauth2.Token{RefreshToken: grant.Refresh}).Token()
		fmt.Println("refreshed:", err == nil, "alive:", p.GrantAlive(grant.Grant))
	}
	fmt.Println("POSTs of that token:", p.Refreshes()[grant.Refresh])
	// Output:
	// refreshed: true alive: true
	// refreshed: false alive: false
	// POSTs of that token: 2
}
