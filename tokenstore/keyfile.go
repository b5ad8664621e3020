package tokenstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// KeyFileID is the ID of the key in every key file.
const KeyFileID = "file"

// LoadOrCreateKeyFile reads the key file at path (32 bytes in base64), or makes one with a random key, mode 0600, and says
// so: the caller should then tell its operator to back the file up, for without it the store is lost. Of several processes
// that start at once, one creates the file, and its folder, and all read the same key. A file that group or others may read is refused.
func LoadOrCreateKeyFile(path string) (key Key, created bool, err error) {
	text, err := readPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return Key{}, false, fmt.Errorf("tokenstore: make key file: %w", err)
		}
		switch err = createPrivate(path, []byte(NewKey()+"\n")); {
		case err == nil:
			created = true
		case !errors.Is(err, fs.ErrExist):
			return Key{}, false, fmt.Errorf("tokenstore: make key file: %w", err)
		}
		text, err = readPrivate(path)
	}
	if err != nil {
		return Key{}, false, fmt.Errorf("tokenstore: read key file: %w", err)
	}
	material, err := ParseKey(text)
	if err != nil {
		return Key{}, false, fmt.Errorf("tokenstore: key file %s: %w", path, err)
	}
	return Key{ID: KeyFileID, Bytes: material}, created, nil
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	if err := checkPrivate(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// checkPrivate refuses what is not a regular file, and what group or others may touch.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return fmt.Errorf("%s may be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return nil
}

// createPrivate creates path with the content, durably and all at once: nobody ever sees a part of it. It returns
// fs.ErrExist, and changes nothing, if path is there already.
func createPrivate(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(temp.Name())) }()
	if _, err := temp.Write(content); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, does not replace a file that another process has just made.
	if err := os.Link(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the creation of files in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
