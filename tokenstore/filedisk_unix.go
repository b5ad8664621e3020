//go:build linux || darwin

package tokenstore

import "syscall"

// freeBytes returns what an ordinary process may still write in dir.
func freeBytes(dir string) (uint64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return stat.Bavail * uint64(stat.Bsize), nil
}
