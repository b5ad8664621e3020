package tokenstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// sidecar is what lies in "{path}.id": which store belongs at path, and how old it is. It stands beside the store so that an older
// copy put in the store's place does not bring its own.
type sidecar struct {
	id    string // empty: there is no sidecar
	count uint64 // of times that the store was opened or closed; 0: not known
}

func idPath(path string) string { return path + ".id" }

// readSidecar returns the zero sidecar if there is none.
func readSidecar(path string) (sidecar, error) {
	text, err := os.ReadFile(idPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return sidecar{}, nil
	}
	if err != nil {
		return sidecar{}, err
	}
	fields := strings.Fields(string(text))
	if len(fields) == 1 {
		return sidecar{id: fields[0]}, nil
	}
	if len(fields) == 2 {
		if count, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			return sidecar{fields[0], count}, nil
		}
	}
	return sidecar{}, fmt.Errorf("%s is empty or damaged: delete it if the store is the right one", idPath(path))
}

// write replaces the sidecar, durably and all at once.
func (s sidecar) write(path string) (err error) {
	name := idPath(path)
	temp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name()) // what went wrong is told already
		}
	}()
	if _, err := fmt.Fprintf(temp, "%s\n%d\n", s.id, s.count); err != nil {
		return errors.Join(err, temp.Close())
	}
	if err := errors.Join(temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// checkBeforeOpen returns the sidecar, if what lies at path can be the store that it names. It must run before bbolt, which makes
// a fresh database of an empty file.
func checkBeforeOpen(path string) (sidecar, error) {
	// The sidecar first: another process that is creating the store writes it last.
	expected, err := readSidecar(path)
	if err != nil {
		return sidecar{}, err
	}
	err = checkPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err != nil {
		return sidecar{}, err
	}
	if info, statErr := os.Stat(path); expected.id != "" && (statErr != nil || info.Size() == 0) {
		return sidecar{}, lostError(path, "is gone or empty")
	}
	return expected, err
}

// lostError says what an operator can do about a store that is not the expected one.
func lostError(path, what string) error {
	return fmt.Errorf("the store %s, but %s says that connections were kept here: restore the store from a backup, "+
		"or delete %[2]s to begin anew without them", what, idPath(path))
}
