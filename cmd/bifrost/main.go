// Command bifrost turns a configuration file into three listening servers and stops them cleanly.
//
// `bifrost serve` runs the proxy; the other commands check a configuration, make keys and speak to the JSON API of a running
// bifrost. Each command is one file; wire.go is the only place that knows both the configuration and the packages that it drives.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Exit codes: 0 success, 1 failure, 2 a command line that cannot be understood.
func main() {
	runtime.MemProfileRate = 0 // until somebody may ask for the profile, which takes 1.5 MB: see opsHandler
	std := stdio{out: os.Stdout, err: os.Stderr, env: os.LookupEnv}
	err := run(context.Background(), os.Args[1:], std)
	if err == nil {
		return
	}
	if errors.Is(err, errReported) {
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "bifrost:", err)
	if _, ok := errors.AsType[usageError](err); ok {
		os.Exit(2)
	}
	os.Exit(1)
}
