package tokenstore_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestFileKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		s := storetest.OpenFile(t)
		return storetest.Opened{
			Backend: s,
			Row: func(slot tokenstore.Slot) (fields [][]byte) {
				require.NoError(t, s.DB().View(func(tx *bbolt.Tx) error {
					fields = [][]byte{bytes.Clone(tx.Bucket(tokenstore.BucketRows).Get(tokenstore.SlotKey(slot)))}
					return nil
				}))
				return fields
			},
			SetRow: func(slot tokenstore.Slot, fields [][]byte) {
				require.NoError(t, s.DB().Update(func(tx *bbolt.Tx) error {
					return tx.Bucket(tokenstore.BucketRows).Put(tokenstore.SlotKey(slot), fields[0])
				}))
			},
			Dump: func() []byte { return dumpBolt(t, s.DB()) },
		}
	})
}

// dumpBolt returns every key and value.
func dumpBolt(t *testing.T, db *bbolt.DB) (all []byte) {
	t.Helper()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				all = append(append(all, k...), v...)
				return nil
			})
		})
	}))
	return all
}
