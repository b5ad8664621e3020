package tokenstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// RestoreConfig says which backup becomes which store.
type RestoreConfig struct {
	Path string    // of the store; what is there is moved aside
	Keys *Keyring  // required: one of them sealed the backup
	From io.Reader // a backup
	// Trust says that nothing was refreshed since the backup was made: then no record is marked Suspect. If that is wrong, the
	// refresh tokens in it were used already, and providers that issue them for one use end the grants that use them again.
	Trust bool
}

// Restored is what a restore did.
type Restored struct {
	Info    BackupInfo
	Records int // connections that the backup holds
	Distrusted
	Before string // where the store that was there is now; empty if there was none
}

// RestoreFile makes a store of a backup. It returns ErrInUse if a process has the store open, and ErrWrongKey if no key of the ring
// opens the backup. Before it has read all of the backup and found it right it changes nothing. The new store has an id of its
// own, so that neither the former store nor the one that was backed up passes for it later, and an empty shelf: people sign in
// again, and connect links are made anew.
func RestoreFile(cfg RestoreConfig) (Restored, error) {
	done, err := restoreFile(cfg)
	if err != nil {
		return Restored{}, fmt.Errorf("tokenstore: restore %s: %w", cfg.Path, err)
	}
	return done, nil
}

func restoreFile(cfg RestoreConfig) (done Restored, err error) {
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return done, err
	}
	release, err := holdFile(cfg.Path)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, release()) }()

	temp, err := os.CreateTemp(filepath.Dir(cfg.Path), filepath.Base(cfg.Path)+".*.restore") // mode 0600
	if err != nil {
		return done, err
	}
	placed := false
	defer func() {
		if !placed {
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	done.Info, err = readBackup(cfg.From, temp)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return done, err
	}
	former, _ := readSidecar(cfg.Path) // a damaged one says nothing
	next, err := done.prepare(temp.Name(), cfg, former)
	if err != nil {
		return done, err
	}

	if done.Before, err = setAside(cfg.Path); err != nil {
		return done, err
	}
	if err := os.Rename(temp.Name(), cfg.Path); err != nil {
		return done, err
	}
	placed = true
	// Until the sidecar is there too, a start is refused: it names another store.
	return done, errors.Join(syncDir(filepath.Dir(cfg.Path)), next.write(cfg.Path))
}

// holdFile keeps other processes from opening the store at path until release. Something damaged, which bifrost would not open
// either, need not be held.
func holdFile(path string) (release func() error, err error) {
	release = func() error { return nil }
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return release, nil
	}
	db, err := openBolt(path, backupWait)
	if errors.Is(err, ErrInUse) {
		return nil, err
	}
	if err == nil {
		release = db.Close
	}
	return release, nil
}

// prepare makes a store of the database at name: a new id, an empty shelf, an age that is greater than that of any copy of the
// former store. It returns the sidecar that belongs to it.
func (done *Restored) prepare(name string, cfg RestoreConfig, former sidecar) (next sidecar, err error) {
	db, err := openBolt(name, backupWait)
	if err != nil {
		return next, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	err = db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil || string(meta.Get(metaID)) != done.Info.Store {
			return errNoBackup
		}
		record := meta.Get(metaCheck)
		if _, err := cfg.Keys.open(purposeCheck, []byte(done.Info.Store), record); err != nil {
			return ErrWrongKey
		}
		key, err := keyOf(record)
		if err != nil {
			return err
		}
		next = sidecar{rand.Text(), max(meta.Sequence(), former.count) + 1}
		// Under the key that it had: as long as records are under that one, a start without it is refused.
		check := cfg.Keys.sealUnder(key, purposeCheck, []byte(next.id), nil)
		if err := errors.Join(meta.Put(metaID, []byte(next.id)), meta.Put(metaCheck, check), meta.SetSequence(next.count)); err != nil {
			return err
		}
		if done.Records, err = countRecords(tx); err != nil || cfg.Trust {
			return errors.Join(err, clearShelf(tx))
		}
		done.Distrusted, err = distrust(tx, cfg.Keys)
		return err
	})
	return next, err
}

// countRecords counts the connections, tombstones left out.
func countRecords(tx *bbolt.Tx) (n int, err error) {
	err = tx.Bucket(bucketRows).ForEach(func(_, raw []byte) error {
		if stored, err := decodeRow(raw); err != nil || !stored.dead {
			n++
		}
		return nil
	})
	return n, err
}

// setAside gives what is at path, and its sidecar, a second name, and returns it; empty if nothing is there. The first name stays
// until the new store takes it, so that there is no moment without a store.
func setAside(path string) (before string, err error) {
	there, err := exists(path)
	if err != nil {
		return "", err
	}
	aside := path + ".before-restore-" + time.Now().UTC().Format("20060102T150405.000Z")
	if there {
		before = aside
		if err := os.Link(path, before); err != nil {
			return "", err
		}
	}
	if there, err = exists(idPath(path)); err != nil || !there {
		return before, err
	}
	return before, os.Link(idPath(path), idPath(aside))
}
