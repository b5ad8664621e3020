package tokenstore

import "go.etcd.io/bbolt"

// What the tests reach behind the back of a File.
func (f *File) DB() *bbolt.DB { return f.db }

var (
	SlotKey    = slotKey
	BucketRows = bucketRows
)

// RedisRow is the key of a slot's row.
func RedisRow(slot Slot) string {
	at, name := locate(slot)
	return at.row(name)
}

var RowFields = rowFields
