package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/config"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// setKeys brings the encryption keys of cfg into force if they are others than before. The store refuses those without which
// it could not be read.
func (p *process) setKeys(cfg *config.Config) error {
	before := p.config.Load()
	if reflect.DeepEqual(cfg.EncryptionKeys, before.EncryptionKeys) {
		return nil
	}
	keys, err := reloadedKeys(cfg)
	if err != nil {
		return err
	}
	if err := p.store.SetKeys(context.Background(), keys); err != nil {
		return fmt.Errorf("encryption_keys: %w%s", err, keyFileHint(cfg, before))
	}
	p.keysChanged(keys)
	return nil
}

// reloadedKeys returns the configured keys, or the key in the file beside the store, which it does not make: a new key could not
// open what is stored.
func reloadedKeys(cfg *config.Config) (*tokenstore.Keyring, error) {
	if len(cfg.EncryptionKeys) == 0 {
		path := cfg.Store.File + ".key"
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("encryption_keys: was taken out, and there is no key file %s: put it back", path)
		}
		key, _, err := tokenstore.LoadOrCreateKeyFile(path)
		if err != nil {
			return nil, fmt.Errorf("encryption_keys: was taken out: %w", err)
		}
		return tokenstore.NewKeyring(key)
	}
	return keyring(cfg)
}

// keyFileHint says how the key that bifrost made itself is written as one of encryption_keys.
func keyFileHint(cfg, before *config.Config) string {
	if len(before.EncryptionKeys) > 0 || len(cfg.EncryptionKeys) == 0 {
		return ""
	}
	return fmt.Sprintf(" (the key that was made at %s.key is written {id: %s, file: …})", cfg.Store.File, tokenstore.KeyFileID)
}

// keysChanged tells that other encryption keys are in force.
func (p *process) keysChanged(keys *tokenstore.Keyring) {
	ids := keys.IDs()
	p.log.Info("the encryption keys were changed", "seals_with", ids[0], "opens", ids)
	p.audit.audited(authflow.ActionKeysChanged, authflow.OK)
}

// warnMissingKeys names the keys that something stored needs and that are not there. It is no reason not to start: everything
// else can be read, and what cannot stays as it is.
func (p *process) warnMissingKeys(ctx context.Context) {
	missing, err := p.store.MissingKeys(ctx)
	if err != nil {
		p.log.Debug("it is not known whether an encryption key is missing", "error", err)
		return
	}
	for _, id := range slices.Sorted(maps.Keys(missing)) {
		p.log.Warn("an encryption key is missing: what it sealed cannot be read until it is back in encryption_keys",
			"key", id, "records", missing[id].Records, "tombstones", missing[id].Tombstones, "shelved", missing[id].Shelved, "noted", missing[id].Noted)
	}
}
