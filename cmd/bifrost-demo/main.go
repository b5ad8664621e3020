// Command bifrost-demo starts a provider, an API and bifrost together on loopback, so that anyone can try bifrost in a minute
// with nothing to configure.
//
// The provider (sign-in, consent, tokens) and the API (users of a directory) live in this process. Bifrost is the real program,
// built from ./cmd/bifrost and run beside it with a real configuration file: what works here works outside. With -tour the demo
// walks through the whole story by itself and checks each step.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bifrost-demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("bifrost-demo", flag.ContinueOnError)
	flags.SetOutput(out)
	tour := flags.Bool("tour", false, "walk through the whole story, check each step, and exit")
	port := flags.Int("port", 8080, "the first of the five `ports` used: proxy, auth, ops, provider, API; 0: any free ones")
	life := flags.Duration("token-life", 0, "lifetime of the provider's access tokens (default 1m, with -tour 5s)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *life == 0 {
		*life = time.Minute
		if *tour {
			*life = 5 * time.Second
		}
	}

	fmt.Fprintln(out, "Building and starting bifrost …")
	d, err := start(ctx, *port, *life)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	if *tour {
		return walk(ctx, d, out)
	}
	d.welcome(out)
	return d.wait(ctx)
}

// welcome says what to open and what to curl.
func (d *demo) welcome(out io.Writer) {
	fmt.Fprintf(out, `
Open the Integrations screen, press Connect beside acme, and consent:

    %[1]s/integrations

Then call the API through the proxy, with nothing but the org's name:

    curl -i -H 'X-Org-ID: acme' '%[2]s%[3]s/v1.0/users'

Connect Global too, and orgs that never connected use that connection:

    curl -i -H 'X-Org-ID: initech' '%[2]s%[3]s/v1.0/users'

Access tokens live %[4]v: call again later, and they have been refreshed. Metrics: %[5]s/metrics
Break acme's grant at the provider, as its administrator could, and see what the screen and the proxy say:

    curl -X POST '%[6]s/break?user=acme-admin'

Configuration and log are in %[7]s; the provider is a fake. Ctrl-C ends everything and forgets it.
`, d.auth, d.proxy, route, d.life, d.ops, d.provider.BaseURL, d.dir)
}
