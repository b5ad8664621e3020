package tokenstore

import "syscall"

// letGo gives the pages of a file's mapping back to the system, which keeps them in its cache as long as it likes. Whoever reads there
// next gets them from it: a mapping that is shared and never written to loses nothing.
func letGo(address uintptr, size int64) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, address, uintptr(size), syscall.MADV_DONTNEED); errno != 0 {
		return errno
	}
	return nil
}
