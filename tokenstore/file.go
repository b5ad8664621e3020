package tokenstore

import (
	"github.com/prometheus/client_golang/prometheus"
)

// File is the embedded store: one bbolt file, one process. It implements Backend.
type File struct{ Backend }

var _ Backend = (*File)(nil)

// FileConfig says where a File is kept.
type FileConfig struct {
	Path    string
	Keys    *Keyring
	Metrics prometheus.Registerer
}

// OpenFile opens or creates the store.
func OpenFile(cfg FileConfig) (*File, error) { panic("skeleton") }

// Close releases the file.
func (f *File) Close() error { panic("skeleton") }
