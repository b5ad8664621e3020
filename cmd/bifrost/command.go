package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// stdio is what a command may touch of the process around it.
type stdio struct {
	out, err io.Writer
	env      func(string) (string, bool)
}

// command is one row of the command line. run gets what follows the name.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, args []string, std stdio) error
}

func commands() []command {
	return []command{
		{"serve", "[-config FILE]", "run the proxy", runServe},
		{"check", "[-config FILE]", "report every problem of a configuration", runCheck},
		{"status", "[-json]", "list integrations and connections", runStatus},
		{"connect-link", "[-expires 24h] [-revoke] NAME ORG", "make a link that connects one org", runConnectLink},
		{"refresh", "NAME ORG", "refresh a connection now", runRefresh},
		{"disconnect", "NAME ORG", "forget a connection", runDisconnect},
		{"backup", "[-config FILE] [-force] FILE", "copy the store while it is in use", runBackup},
		{"restore", "[-config FILE] [-trust] FILE", "make a store of a backup", runRestore},
		{"rekey", "[-config FILE]", "seal every record with the newest key", runRekey},
		{"key new", "", "print a new key, for a caller or encryption_keys", runKeyNew},
		{"version", "", "print the version", runVersion},
	}
}

// errReported says that the command has already told what went wrong, on stdout or in the log.
var errReported = errors.New("already reported")

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// run carries out the command that args name.
func run(ctx context.Context, args []string, std stdio) error {
	if len(args) == 0 {
		return usagef("no command\n\n%s", usage())
	}
	if name := strings.TrimLeft(args[0], "-"); name == "help" || name == "h" {
		_, err := io.WriteString(std.out, usage())
		return err
	}
	for _, cmd := range commands() {
		words := strings.Fields(cmd.name)
		if len(args) < len(words) || strings.Join(args[:len(words)], " ") != cmd.name {
			continue
		}
		err := cmd.run(ctx, args[len(words):], std)
		if errors.Is(err, flag.ErrHelp) {
			return nil // the flag set has printed its help
		}
		return err
	}
	return usagef("unknown command %q\n\n%s", strings.Join(args, " "), usage())
}

func usage() string {
	var b strings.Builder
	b.WriteString("usage: bifrost COMMAND [flags]\n\n")
	for _, cmd := range commands() {
		fmt.Fprintf(&b, "  %-46s %s\n", strings.TrimSpace(cmd.name+" "+cmd.args), cmd.summary)
	}
	b.WriteString("\nbifrost COMMAND -h lists a command's flags\n")
	return b.String()
}

// newFlags returns a flag set that leaves reporting to parse.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet("bifrost "+name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads flags and exactly the named arguments from args, in any order, and returns the arguments' values.
func parse(fs *flag.FlagSet, args []string, std stdio, names ...string) ([]string, error) {
	var values []string
	for {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			fs.SetOutput(std.out)
			fmt.Fprintf(std.out, "usage: %s [flags] %s\n", fs.Name(), strings.Join(names, " "))
			fs.PrintDefaults()
			return nil, err
		} else if err != nil {
			return nil, usagef("%s: %w", fs.Name(), err)
		}
		if fs.NArg() == 0 {
			break
		}
		values, args = append(values, fs.Arg(0)), fs.Args()[1:]
	}
	if len(values) != len(names) {
		return nil, usagef("%s wants %d arguments (%s), got %d", fs.Name(), len(names), strings.Join(names, " "), len(values))
	}
	return values, nil
}
