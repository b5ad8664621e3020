package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// runBackup copies the file store: itself, or through the process that has the file.
func runBackup(ctx context.Context, args []string, std stdio) error {
	flags := newFlags("backup")
	path := flags.String(configFlag, configDefault, "configuration `file`")
	force := flags.Bool("force", false, "replace FILE if it is there")
	connect := apiFlagsBeside(flags, std, "")
	names, err := parse(flags, args, std, "FILE")
	if err != nil {
		return err
	}
	cfg, err := loadConfig(*path, std)
	if err != nil {
		return err
	}
	if cfg.Store.RedisURL != "" {
		return errors.New("a backup is made of a file store only. Redis backs itself up: copy its RDB or append-only files")
	}
	to := names[0]
	switch there, err := os.Stat(to); {
	case err == nil && isStore(cfg.Store.File, there):
		return fmt.Errorf("%s is the store itself, or belongs to it: name another file", to)
	case err == nil && !*force:
		return fmt.Errorf("%s is there already: -force replaces it", to)
	}
	b, err := tokenstore.BackupFile(cfg.Store.File)
	write := func(w io.Writer) error {
		_, err := b.WriteTo(w)
		return errors.Join(err, b.Close())
	}
	here := err == nil
	if errors.Is(err, tokenstore.ErrInUse) {
		a, err := connect(serverOf(cfg))
		if err != nil {
			return err
		}
		write = func(w io.Writer) error { return a.download(ctx, "/api/v1/backup", w) }
	} else if err != nil {
		return err
	}
	info, size, err := saveBackup(to, *force, write)
	if here {
		log, _ := newLog(std.err, cfg.Log)
		commandAudit(cfg, std, log).audited(authflow.ActionBackup, outcomeOf(err))
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s: %d bytes, of %s; keep the encryption key elsewhere: without it the backup is worth nothing\n",
		to, size, info.Made.Format(time.RFC3339))
	return err
}

// isStore says whether a file is the store, or what lies beside it.
func isStore(store string, file os.FileInfo) bool {
	for _, suffix := range []string{"", ".id", ".key"} {
		if own, err := os.Stat(store + suffix); err == nil && os.SameFile(own, file) {
			return true
		}
	}
	return false
}

// download writes the body of an answer.
func (a *api) download(ctx context.Context, path string, w io.Writer) error {
	a.client.Timeout = 0 // as long as it takes
	resp, err := a.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		return apiError(resp.Status, text)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("the backup was cut short: %w", err)
	}
	return nil
}

// saveBackup makes the file at to, mode 0600, all at once and only if what write wrote is a whole backup.
func saveBackup(to string, force bool, write func(io.Writer) error) (info tokenstore.BackupInfo, size int64, err error) {
	dir := filepath.Dir(to)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(to)+".*") // mode 0600
	if err != nil {
		return info, 0, err
	}
	defer func() {
		_ = temp.Close()           // again, after a success
		_ = os.Remove(temp.Name()) // gone, after a rename
	}()
	if err := errors.Join(write(temp), temp.Sync()); err != nil {
		return info, 0, err
	}
	if size, err = temp.Seek(0, io.SeekEnd); err != nil {
		return info, 0, err
	}
	if _, err := temp.Seek(0, io.SeekStart); err != nil {
		return info, 0, err
	}
	if info, err = tokenstore.VerifyBackup(temp); err != nil {
		return info, 0, err
	}
	place := os.Link // unlike a rename it replaces nothing
	if force {
		place = os.Rename
	}
	if err := errors.Join(temp.Close(), place(temp.Name(), to)); errors.Is(err, fs.ErrExist) {
		return info, 0, fmt.Errorf("%s is there already: -force replaces it", to)
	} else if err != nil {
		return info, 0, err
	}
	d, err := os.Open(dir) // makes the name durable too
	if err != nil {
		return info, 0, err
	}
	return info, size, errors.Join(d.Sync(), d.Close())
}
