//go:build !linux

package tokenstore

// letGo leaves it to the system.
func letGo(uintptr, int64) error { return nil }
