package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// besideWait is how long a command waits for the store file before it asks the process that has it.
const besideWait = 300 * time.Millisecond

// runRekey seals every record with the newest key: itself, or through the process that has the store file.
func runRekey(ctx context.Context, args []string, std stdio) error {
	flags := newFlags("rekey")
	path := flags.String(configFlag, configDefault, "configuration `file`")
	connect := apiFlagsBeside(flags, std, "")
	if _, err := parse(flags, args, std); err != nil {
		return err
	}
	cfg, err := loadConfig(*path, std)
	if err != nil {
		return err
	}
	log, _ := newLog(std.err, cfg.Log)
	done, err := rekeyHere(ctx, cfg, log, std)
	if errors.Is(err, tokenstore.ErrInUse) {
		a, err := connect(serverOf(cfg))
		if err != nil {
			return err
		}
		a.client.Timeout = 0 // as long as it takes
		if err := a.call(ctx, http.MethodPost, "/api/v1/rekey", nil, &done); err != nil {
			return err
		}
		if newest := newestKey(cfg); done.Key != newest {
			return fmt.Errorf("the running serve seals with the key %q, not yet with %q: its log says why it has not loaded that one; then run this again", done.Key, newest)
		}
	} else if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "resealed %d records with the newest key; %d were under it already\n", done.Resealed, done.Current)
	if done.Unreadable > 0 {
		fmt.Fprintf(std.out, "%d records open with no key and were left as they are; `bifrost status` tells which\n", done.Unreadable)
	}
	if !done.Complete {
		return errors.New("the older keys must stay in encryption_keys: disconnect what cannot be read, or connect it anew, and run this again")
	}
	fmt.Fprintln(std.out, "the older keys can be taken out of encryption_keys")
	return nil
}

// rekeyHere does it in this process. It makes no store where there is none.
func rekeyHere(ctx context.Context, cfg *config.Config, log *slog.Logger, std stdio) (done tokenstore.Rekeyed, err error) {
	var kept store
	if cfg.Store.RedisURL != "" {
		var at tokenstore.RedisConfig
		if at, err = redisConfig(cfg, nil, log); err == nil {
			at.MustExist = true
			kept, err = openRedis(ctx, at)
		}
	} else {
		if err := mustExist(cfg.Store.File); err != nil {
			return done, err
		}
		var keys *tokenstore.Keyring
		if keys, err = fileKeys(cfg, log); err == nil {
			kept, err = openFile(tokenstore.FileConfig{Path: cfg.Store.File, Keys: keys, Wait: besideWait}, log)
		}
	}
	if err != nil {
		return done, err
	}
	done, err = kept.Rekey(ctx)
	commandAudit(cfg, std, log).audited(authflow.ActionRekey, outcomeOf(err))
	return done, errors.Join(err, kept.Close())
}

// newestKey returns the id of the key that a process which is started now would seal with.
func newestKey(cfg *config.Config) string {
	if len(cfg.EncryptionKeys) == 0 {
		return tokenstore.KeyFileID
	}
	return cfg.EncryptionKeys[0].ID
}

// mustExist returns an error if there is no store: opening it would make one.
func mustExist(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no store at %s: `store.file` starts at the working directory", path)
	} else if err != nil {
		return err
	}
	return nil
}

// loadConfig tells every problem of the configuration on stderr.
func loadConfig(path string, std stdio) (*config.Config, error) {
	cfg, err := load(path, std.env)
	if err != nil {
		fmt.Fprintln(std.err, err)
		return nil, errReported
	}
	return cfg, nil
}

// serverOf returns where the process that runs with a configuration answers on this machine. With TLS its certificate is for
// the public name.
func serverOf(cfg *config.Config) string {
	host, port, err := net.SplitHostPort(cfg.Auth.Listen)
	if err != nil || cfg.Auth.TLS != nil {
		return cfg.Auth.PublicURL
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(cmp.Or(host, "127.0.0.1"), port)
}
