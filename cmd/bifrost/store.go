package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

const (
	openTimeout = 10 * time.Second       // bounds the first contact with Redis
	openPause   = 250 * time.Millisecond // between two tries
)

// store is what the process holds of either implementation.
type store interface {
	tokenstore.Backend
	io.Closer
	Ping(ctx context.Context) error
	Rekey(ctx context.Context) (tokenstore.Rekeyed, error)
	SetKeys(ctx context.Context, keys *tokenstore.Keyring) error
	MissingKeys(ctx context.Context) (map[string]tokenstore.KeyUse, error)
}

// storeKind names the store without its address, which may hold a password.
func storeKind(cfg *config.Config) string {
	if cfg.Store.RedisURL != "" {
		return "redis"
	}
	return cfg.Store.File
}

// openStore opens the configured store. The errors of a wrong key, of a file that another process holds and of an emptied
// store say what to do, and end the start.
func openStore(ctx context.Context, cfg *config.Config, reg prometheus.Registerer, log *slog.Logger) (store, error) {
	if cfg.Store.RedisURL == "" {
		keys, err := fileKeys(cfg, log)
		if err != nil {
			return nil, err
		}
		return openFile(tokenstore.FileConfig{Path: cfg.Store.File, Keys: keys, Metrics: reg}, log)
	}
	at, err := redisConfig(cfg, reg, log)
	if err != nil {
		return nil, err
	}
	return openRedis(ctx, at)
}

// redisConfig says how the configured Redis is opened.
func redisConfig(cfg *config.Config, reg prometheus.Registerer, log *slog.Logger) (at tokenstore.RedisConfig, err error) {
	if len(cfg.EncryptionKeys) == 0 {
		return at, errors.New("encryption_keys: required with a Redis store; `bifrost key new` makes a key")
	}
	keys, err := keyring(cfg)
	if err != nil {
		return at, fmt.Errorf("encryption_keys: %w", err)
	}
	return tokenstore.RedisConfig{
		URL:            cfg.Store.RedisURL.Reveal(),
		Keys:           keys,
		Metrics:        reg,
		Log:            log,
		WaitReplicas:   cfg.Store.RedisWaitReplicas,
		AcceptDataLoss: cfg.Store.RedisAcceptDataLoss,
		AllowInsecure:  cfg.Store.RedisAllowInsecure,
	}, nil
}

// openRedis tries again while Redis cannot be reached or is starting: after a power cut everything starts at once.
func openRedis(ctx context.Context, cfg tokenstore.RedisConfig) (store, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for told := false; ; told = true {
		s, err := opened(tokenstore.NewRedis(ctx, cfg))
		if !errors.Is(err, tokenstore.ErrUnavailable) {
			return s, err
		}
		if !told {
			cfg.Log.Warn("redis is not available yet", "error", err, "tried_for", openTimeout.String())
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(openPause):
		}
	}
}

// openFile opens a file store and tells if it is not what was here before.
func openFile(cfg tokenstore.FileConfig, log *slog.Logger) (store, error) {
	file, err := tokenstore.OpenFile(cfg)
	if err != nil {
		return nil, err
	}
	if found, older := file.OlderCopy(); older {
		log.Warn("the store is an older copy that was not restored with `bifrost restore`: connections whose refresh token works only "+
			"once keep their access token and are not refreshed until `bifrost refresh` or a new consent",
			"file", cfg.Path, "marked", found.Marked, "unreadable", found.Unreadable)
	}
	return file, nil
}

// opened keeps a nil pointer from becoming a store that is not nil.
func opened[S store](s S, err error) (store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// lostKey says that a store is there without its key file: a new key could not open it, and would only look like the lost one.
func lostKey(store, key string) error {
	// The store first: its key is made before it, so that a process which is starting just now is no loss.
	if _, err := os.Stat(store); err != nil {
		return nil // opening it tells what is wrong, if anything is
	}
	if _, err := os.Stat(key); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("the key file %s is missing, but the store %s is there: put the file back, or name its key under encryption_keys", key, store)
}

// fileKeys returns the configured keys, or the key in the file beside the store, which it makes at the first start.
func fileKeys(cfg *config.Config, log *slog.Logger) (*tokenstore.Keyring, error) {
	if len(cfg.EncryptionKeys) > 0 {
		return keyring(cfg)
	}
	path := cfg.Store.File + ".key"
	if err := lostKey(cfg.Store.File, path); err != nil {
		return nil, err
	}
	key, created, err := tokenstore.LoadOrCreateKeyFile(path)
	if err != nil {
		return nil, err
	}
	if created {
		log.Warn("a new encryption key was made: back it up, without it the store cannot be read", "file", path)
	}
	return tokenstore.NewKeyring(key)
}

// alone tells whether nobody else can write to the store: a file is locked against other processes.
func alone(kept store) bool {
	_, ok := kept.(*tokenstore.File)
	return ok
}
