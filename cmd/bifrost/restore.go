package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// runRestore makes the file store of a backup.
func runRestore(_ context.Context, args []string, std stdio) error {
	flags := newFlags("restore")
	path := flags.String(configFlag, configDefault, "configuration `file`")
	trust := flags.Bool("trust", false, "nothing was refreshed since the backup: mark no connection")
	names, err := parse(flags, args, std, "FILE")
	if err != nil {
		return err
	}
	cfg, err := loadConfig(*path, std)
	if err != nil {
		return err
	}
	if cfg.Store.RedisURL != "" {
		return errors.New("the configuration has a Redis store: a backup can be restored to a file store only")
	}
	keys, err := restoreKeys(cfg, std)
	if err != nil {
		return err
	}
	from, err := os.Open(names[0])
	if err != nil {
		return err
	}
	done, err := tokenstore.RestoreFile(tokenstore.RestoreConfig{Path: cfg.Store.File, Keys: keys, From: from, Trust: *trust})
	if err := errors.Join(err, from.Close()); err != nil {
		if errors.Is(err, tokenstore.ErrInUse) {
			return fmt.Errorf("%w: stop bifrost serve first", err)
		}
		return err
	}
	return reportRestore(std.out, cfg.Store.File, done)
}

// restoreKeys returns the keys that must be there already: a new one could not open the backup.
func restoreKeys(cfg *config.Config, std stdio) (*tokenstore.Keyring, error) {
	if len(cfg.EncryptionKeys) == 0 {
		key := cfg.Store.File + ".key"
		if _, err := os.Stat(key); err != nil {
			return nil, fmt.Errorf("%w: put the key file of the store that was backed up there, or name its key under encryption_keys", err)
		}
	}
	log, _ := newLog(std.err, cfg.Log)
	return fileKeys(cfg, log)
}

func reportRestore(w io.Writer, path string, done tokenstore.Restored) error {
	fmt.Fprintf(w, "restored %d connections to %s, as they were at %s\n", done.Records, path, done.Info.Made.Format(time.RFC3339))
	if done.Before != "" {
		fmt.Fprintf(w, "the store that was there is now %s\n", done.Before)
	}
	if done.Unreadable > 0 {
		fmt.Fprintf(w, "%d of them open with no key of encryption_keys\n", done.Unreadable)
	}
	if done.Marked > 0 {
		fmt.Fprintf(w, "%d may have been refreshed since. Where refresh tokens work only once, `bifrost status` tells which connections are not\n"+
			"refreshed by themselves: `bifrost refresh NAME ORG` tries it, and if the provider refuses, connect them anew\n", done.Marked)
	}
	_, err := fmt.Fprintln(w, "people sign in again, and open connect links must be made anew; now start bifrost serve")
	return err
}
