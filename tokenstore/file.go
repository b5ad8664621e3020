package tokenstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// openWait is how long OpenFile waits for another process to let go of the file, such as one that is shutting down.
const openWait = 5 * time.Second

// File is the embedded store: one bbolt file, one process. It implements Backend. What a method has stored is on the disk
// when it returns.
type File struct {
	Backend
	vault *vault // the Backend
	db    *bbolt.DB
	id    string
}

var _ Backend = (*File)(nil)

// FileConfig says where a File is kept.
type FileConfig struct {
	Path    string                // made with mode 0600 if it is not there, its folder with 0700
	Keys    *Keyring              // required
	Metrics prometheus.Registerer // nil: no metrics
}

// OpenFile opens or creates the store, alone: it returns ErrInUse if another process still has it open after 5 s, and
// ErrWrongKey if no key of the ring opens it. Beside the file lies "{Path}.id" with the store's id: where that says that
// there was a store, a file that is gone, empty or another store's is an error that says what to do, never a new store.
func OpenFile(cfg FileConfig) (*File, error) {
	f, err := openFile(cfg)
	if err != nil {
		return nil, fmt.Errorf("tokenstore: open %s: %w", cfg.Path, err)
	}
	return f, nil
}

func openFile(cfg FileConfig) (*File, error) {
	if cfg.Path == "" || cfg.Keys == nil {
		return nil, errors.New("a file store needs a path and keys")
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Path), 0o700); err != nil {
		return nil, err
	}
	expected, err := checkBeforeOpen(cfg.Path)
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(cfg.Path, 0o600, &bbolt.Options{Timeout: openWait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("%w: if the file is damaged, restore it from a backup", err)
	}
	f, err := newFile(db, cfg, expected)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return f, nil
}

func newFile(db *bbolt.DB, cfg FileConfig, expected string) (*File, error) {
	e := &fileEngine{db: db, watchers: newWatchers()}
	id, err := e.begin(cfg.Keys, expected)
	if err != nil {
		return nil, err
	}
	if expected == "" {
		if err := errors.Join(syncDir(filepath.Dir(cfg.Path)), createPrivate(idPath(cfg.Path), []byte(id+"\n"))); err != nil {
			return nil, err
		}
	}
	v := newVault(e, cfg.Keys, cfg.Metrics)
	return &File{Backend: v, vault: v, db: db, id: id}, nil
}

// Close releases the file. Every later call is ErrUnavailable.
func (f *File) Close() error { return f.db.Close() }

// ID returns the store's id: random, made with the store, the same after every restart.
func (f *File) ID() string { return f.id }

// Ping says whether the store can be read.
func (f *File) Ping(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = f.db.View(func(*bbolt.Tx) error { return nil })
	}
	if err != nil {
		return wrap("ping", Slot{}, err)
	}
	return nil
}

func idPath(path string) string { return path + ".id" }

// checkBeforeOpen returns the id that the sidecar expects of the file, empty if there is no sidecar. It must run before
// bbolt, which makes a fresh database of an empty file.
func checkBeforeOpen(path string) (expected string, err error) {
	// The sidecar first: another process that is creating the store writes it last.
	sidecar, err := os.ReadFile(idPath(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	expected = strings.TrimSpace(string(sidecar))
	if sidecar != nil && expected == "" {
		return "", fmt.Errorf("%s is empty: delete it if the store is the right one", idPath(path))
	}
	err = checkPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err != nil {
		return "", err
	}
	if info, statErr := os.Stat(path); expected != "" && (statErr != nil || info.Size() == 0) {
		return "", lostError(path, "is gone or empty")
	}
	return expected, err
}

// lostError says what an operator can do about a store that is not the expected one.
func lostError(path, what string) error {
	return fmt.Errorf("the store %s, but %s says that connections were kept here: restore the store from a backup, "+
		"or delete %[2]s to begin anew without them", what, idPath(path))
}

// Buckets of the file.
var (
	bucketMeta   = []byte("meta")   // id, check; its sequence counts the times that the store was opened
	bucketRows   = []byte("rows")   // slot key -> row
	bucketDue    = []byte("due")    // time, slot key -> nothing
	bucketShelf  = []byte("shelf")  // hash -> expiry, sealed value
	bucketExpiry = []byte("expiry") // time, kind, key -> nothing
)

// Keys of the meta bucket.
var (
	metaID    = []byte("id")
	metaCheck = []byte("check")
)

// begin makes the buckets of a new store or checks those of an old one, and starts a new epoch of fences.
func (e *fileEngine) begin(keys *Keyring, expected string) (id string, err error) {
	err = e.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			if expected != "" {
				return lostError(e.db.Path(), "is empty or another program's")
			}
			if first, _ := tx.Cursor().First(); first != nil {
				return errors.New("it is another program's database")
			}
			if meta, err = create(tx, keys); err != nil {
				return err
			}
		}
		id = string(meta.Get(metaID))
		if expected != "" && id != expected {
			return lostError(e.db.Path(), "is another one")
		}
		if _, err := keys.open(purposeCheck, []byte(id), meta.Get(metaCheck)); err != nil {
			return ErrWrongKey
		}
		epoch, err := meta.NextSequence()
		e.leases = newLeases(int64(epoch) << 32)
		return err
	})
	return id, err
}

func create(tx *bbolt.Tx, keys *Keyring) (meta *bbolt.Bucket, err error) {
	for _, name := range [][]byte{bucketRows, bucketDue, bucketShelf, bucketExpiry, bucketMeta} {
		if meta, err = tx.CreateBucket(name); err != nil {
			return nil, err
		}
	}
	id := rand.Text()
	return meta, errors.Join(
		meta.Put(metaID, []byte(id)),
		meta.Put(metaCheck, keys.seal(purposeCheck, []byte(id), nil)),
	)
}
