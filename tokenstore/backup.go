package tokenstore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// backupFormat stands first in the header line.
const backupFormat = "bifrost-backup/1"

// backupWait is how long BackupFile and RestoreFile wait for another process to let go of the store.
const backupWait = 300 * time.Millisecond

// BackupInfo is the first line of a backup, in JSON. After it come Bytes bytes of a database, sealed as it is in the store, and a
// last line with the SHA-256 of all that, in hex.
type BackupInfo struct {
	Format string    `json:"format"`
	Store  string    `json:"store"` // the id of the store that it was made of
	Made   time.Time `json:"made"`
	Bytes  int64     `json:"bytes"`
}

// trailerSize is the length of the last line.
const trailerSize = 2*sha256.Size + 1

// Backup is a consistent copy of a File, with nothing in it that the keys do not protect. Only RestoreFile makes a store of it.
type Backup struct {
	Info BackupInfo
	Size int64 // of everything that WriteTo writes

	header []byte
	copied *os.File // has no name any more
}

// WriteTo writes the backup. It can be called once.
func (b *Backup) WriteTo(w io.Writer) (int64, error) {
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, hash), io.MultiReader(bytes.NewReader(b.header), b.copied))
	if err == nil && n != b.Size-trailerSize {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return n, err
	}
	m, err := io.WriteString(w, hex.EncodeToString(hash.Sum(nil))+"\n")
	return n + int64(m), err
}

// Close gives the disk space back.
func (b *Backup) Close() error { return b.copied.Close() }

// Backup makes a copy of the store as it is now, while everything else goes on. The copy is on the disk first, so that a slow reader
// holds up no refresh; it needs as much space as the store, which must be free.
func (f *File) Backup() (*Backup, error) {
	info, err := os.Stat(f.path)
	if err == nil {
		err = f.engine.room(uint64(info.Size()))
	}
	if err != nil {
		return nil, wrap("backup", Slot{}, err)
	}
	b, err := newBackup(f.db, f.path)
	if err != nil {
		return nil, wrap("backup", Slot{}, err)
	}
	return b, nil
}

// BackupFile makes a copy of the store at path, which no process has open: else it returns ErrInUse. It needs no key.
func BackupFile(path string) (_ *Backup, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("tokenstore: back up %s: %w", path, err)
		}
	}()
	if _, err := checkBeforeOpen(path); err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return nil, errors.New("there is no store")
	}
	db, err := openBolt(path, backupWait)
	if err != nil {
		return nil, err
	}
	b, err := newBackup(db, path)
	return b, errors.Join(err, db.Close())
}

// newBackup copies db to a file without a name beside path.
func newBackup(db *bbolt.DB, path string) (_ *Backup, err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.backup") // mode 0600
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = temp.Close() // what went wrong is told already
		}
	}()
	if err := os.Remove(temp.Name()); err != nil {
		return nil, err
	}
	b := &Backup{Info: BackupInfo{Format: backupFormat, Made: time.Now().UTC().Truncate(time.Second)}, copied: temp}
	if err := db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return errors.New("it is another program's database")
		}
		b.Info.Store = string(meta.Get(metaID))
		b.Info.Bytes, err = tx.WriteTo(temp)
		return err
	}); err != nil {
		return nil, err
	}
	if b.header, err = json.Marshal(b.Info); err != nil {
		return nil, err
	}
	b.header = append(b.header, '\n')
	b.Size = int64(len(b.header)) + b.Info.Bytes + trailerSize
	_, err = temp.Seek(0, io.SeekStart)
	return b, err
}

// VerifyBackup reads a whole backup and says whether it is complete and as it was made. It needs no key.
func VerifyBackup(r io.Reader) (BackupInfo, error) {
	info, err := readBackup(r, io.Discard)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("tokenstore: %w", err)
	}
	return info, nil
}

var (
	errNoBackup  = errors.New("this is not a backup of bifrost's")
	errCutBackup = errors.New("the backup is cut short")
	errBadBackup = errors.New("the backup is damaged: its SHA-256 is another")
)

// readBackup writes the database of a backup to w, and says afterwards whether it was right.
func readBackup(r io.Reader, w io.Writer) (info BackupInfo, err error) {
	in := bufio.NewReaderSize(r, 4096)
	header, err := in.ReadSlice('\n')
	if err != nil || json.Unmarshal(header, &info) != nil || info.Format != backupFormat || info.Bytes <= 0 {
		return info, errNoBackup
	}
	hash := sha256.New()
	_, _ = hash.Write(header) // never fails
	if _, err := io.CopyN(io.MultiWriter(w, hash), in, info.Bytes); errors.Is(err, io.EOF) {
		return info, errCutBackup
	} else if err != nil {
		return info, err
	}
	trailer := make([]byte, trailerSize)
	if _, err := io.ReadFull(in, trailer); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return info, errCutBackup
	} else if err != nil {
		return info, err
	}
	if want := hex.EncodeToString(hash.Sum(nil)) + "\n"; subtle.ConstantTimeCompare(trailer, []byte(want)) != 1 {
		return info, errBadBackup
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return info, errBadBackup
	}
	return info, nil
}

// exists says whether there is something at path.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
