package tokenstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
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
	vault  *vault // the Backend
	engine *fileEngine
	db     *bbolt.DB
	path   string
	begun
	closing sync.Once
}

var _ Backend = (*File)(nil)

// FileConfig says where a File is kept.
type FileConfig struct {
	Path    string                // made with mode 0600 if it is not there, its folder with 0700
	Keys    *Keyring              // required
	Metrics prometheus.Registerer // nil: no metrics
	Wait    time.Duration         // for another process to let go of the file; 0: 5 s
}

// OpenFile opens or creates the store, alone: it returns ErrInUse if another process still has it open after Wait, and
// ErrWrongKey if no key of the ring opens it. Beside the file lies "{Path}.id" with the store's id and age: where that says that
// there was a store, a file that is gone, empty or another store's is an error that says what to do, never a new store; and an
// older copy of it, or a file with connections that has nothing beside it, is opened with every record marked Suspect.
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
	if _, err := checkBeforeOpen(cfg.Path); err != nil {
		return nil, err
	}
	db, err := openBolt(cfg.Path, cmp.Or(cfg.Wait, openWait))
	if err != nil {
		return nil, err
	}
	f, err := newFile(db, cfg)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return f, nil
}

// openBolt opens a database that nobody else has open; ErrInUse if that is not so within wait.
func openBolt(path string, wait time.Duration) (*bbolt.DB, error) {
	var opened *os.File
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: wait, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, perm os.FileMode) (file *os.File, err error) {
			opened, err = os.OpenFile(name, flag, perm)
			return opened, err
		}})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("%w: if the file is damaged, restore it from a backup", err)
	}
	// While the lock was waited for, a restore may have put another file in this one's place.
	there, err := os.Stat(path)
	if mine, statErr := opened.Stat(); err != nil || statErr != nil || !os.SameFile(there, mine) {
		return nil, errors.Join(errors.New("the file was exchanged while it was opened: try again"), err, statErr, db.Close())
	}
	return db, nil
}

func newFile(db *bbolt.DB, cfg FileConfig) (*File, error) {
	expected, err := readSidecar(cfg.Path) // again: only now nobody else writes it
	if err != nil {
		return nil, err
	}
	e := &fileEngine{db: db, watchers: newWatchers(), free: func() (uint64, error) { return freeBytes(filepath.Dir(cfg.Path)) }}
	begun, err := e.begin(cfg.Keys, expected)
	if err != nil {
		return nil, err
	}
	// After the database: the sidecar must never be the newer of the two.
	if err := errors.Join(syncDir(filepath.Dir(cfg.Path)), begun.sidecar.write(cfg.Path)); err != nil {
		return nil, err
	}
	newFileMetrics(cfg.Metrics, e.free)
	v := newVault(e, cfg.Keys, cfg.Metrics)
	return &File{Backend: v, vault: v, engine: e, db: db, path: cfg.Path, begun: begun}, nil
}

// Close releases the file. Every later call is ErrUnavailable.
func (f *File) Close() (err error) {
	f.closing.Do(func() {
		// Counted, so that a copy made while the store was open is older than what is left behind.
		left := f.sidecar
		err = f.db.Update(func(tx *bbolt.Tx) (err error) {
			left.count, err = tx.Bucket(bucketMeta).NextSequence()
			return err
		})
		if err == nil {
			err = left.write(f.path)
		}
		err = errors.Join(err, f.db.Close())
	})
	return err
}

// ID returns the store's id: random, made with the store, the same after every restart. A restore makes a new one.
func (f *File) ID() string { return f.sidecar.id }

// OlderCopy says whether the file was found to be a copy, older than the store that was last open at its path or with nothing
// that tells its age, and what was therefore marked.
func (f *File) OlderCopy() (Distrusted, bool) { return f.distrusted, f.older }

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

// Buckets of the file.
var (
	bucketMeta   = []byte("meta")   // id, check; its sequence counts the times that the store was opened or closed
	bucketRows   = []byte("rows")   // slot key -> row
	bucketDue    = []byte("due")    // time, slot key -> nothing
	bucketShelf  = []byte("shelf")  // hash -> expiry, sealed value
	bucketExpiry = []byte("expiry") // time, kind, key -> nothing
	bucketNotes  = []byte("notes")  // slot key, number -> expiry, sealed entry
)

// Keys of the meta bucket.
var (
	metaID    = []byte("id")
	metaCheck = []byte("check")
)

// begun is how a store was found.
type begun struct {
	sidecar    sidecar // as it must be written now
	older      bool
	distrusted Distrusted
}

// begin makes the buckets of a new store or checks those of an old one, and starts a new epoch of fences.
func (e *fileEngine) begin(keys *Keyring, expected sidecar) (b begun, err error) {
	err = e.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			if expected.id != "" {
				return lostError(e.db.Path(), "is empty or another program's")
			}
			if first, _ := tx.Cursor().First(); first != nil {
				return errors.New("it is another program's database")
			}
			if meta, err = create(tx, keys); err != nil {
				return err
			}
		}
		if _, err := tx.CreateBucketIfNotExists(bucketNotes); err != nil { // a store made before there were entries has none
			return err
		}
		b.sidecar.id = string(meta.Get(metaID))
		if expected.id != "" && b.sidecar.id != expected.id {
			return lostError(e.db.Path(), "is another one")
		}
		if _, err := keys.open(purposeCheck, []byte(b.sidecar.id), meta.Get(metaCheck)); err != nil {
			return ErrWrongKey
		}
		first, _ := tx.Bucket(bucketRows).Cursor().First()
		if b.older = first != nil && (expected.id == "" || meta.Sequence() < expected.count); b.older {
			if b.distrusted, err = distrust(tx, keys); err != nil {
				return err
			}
		}
		b.sidecar.count = max(meta.Sequence(), expected.count) + 1
		e.leases = newLeases(int64(b.sidecar.count) << 32)
		return meta.SetSequence(b.sidecar.count)
	})
	return b, err
}

func create(tx *bbolt.Tx, keys *Keyring) (meta *bbolt.Bucket, err error) {
	for _, name := range [][]byte{bucketRows, bucketDue, bucketShelf, bucketExpiry, bucketNotes, bucketMeta} {
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
