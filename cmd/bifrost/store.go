package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// openTimeout bounds the first contact with Redis.
const openTimeout = 10 * time.Second

// store is what the process holds of either implementation.
type store interface {
	tokenstore.Backend
	io.Closer
	Ping(ctx context.Context) error
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
		return opened(tokenstore.OpenFile(tokenstore.FileConfig{Path: cfg.Store.File, Keys: keys, Metrics: reg}))
	}
	if len(cfg.EncryptionKeys) == 0 {
		return nil, errors.New("encryption_keys: required with a Redis store; `bifrost key new` makes a key")
	}
	keys, err := keyring(cfg)
	if err != nil {
		return nil, fmt.Errorf("encryption_keys: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return opened(tokenstore.NewRedis(ctx, tokenstore.RedisConfig{URL: cfg.Store.RedisURL.Reveal(), Keys: keys, Metrics: reg}))
}

// opened keeps a nil pointer from becoming a store that is not nil.
func opened[S store](s S, err error) (store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// fileKeys returns the configured keys, or the key in the file beside the store, which it makes at the first start.
func fileKeys(cfg *config.Config, log *slog.Logger) (*tokenstore.Keyring, error) {
	if len(cfg.EncryptionKeys) > 0 {
		return keyring(cfg)
	}
	path := cfg.Store.File + ".key"
	key, created, err := tokenstore.LoadOrCreateKeyFile(path)
	if err != nil {
		return nil, err
	}
	if created {
		log.Warn("a new encryption key was made: back it up, without it the store cannot be read", "file", path)
	}
	return tokenstore.NewKeyring(key)
}
