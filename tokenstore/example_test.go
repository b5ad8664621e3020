package tokenstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func ExampleOpenFile() {
	dir, err := os.MkdirTemp("", "bifrost-example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "bifrost.db")

	key, created, err := tokenstore.LoadOrCreateKeyFile(path + ".key")
	if err != nil {
		log.Fatal(err)
	}
	if created {
		fmt.Println("made a key file: back it up")
	}
	keys, err := tokenstore.NewKeyring(key)
	if err != nil {
		log.Fatal(err)
	}
	store, err := tokenstore.OpenFile(tokenstore.FileConfig{Path: path, Keys: keys})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = store.Close() }()

	ctx := context.Background()
	slot := tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}
	rec := &tokenstore.Record{
		Grant: "first", Generation: 1,
		Token: tokenstore.Token{Access: "secret", Type: "Bearer", Expiry: time.Now().Add(time.Hour)},
	}
	if err := store.Save(ctx, slot, rec, tokenstore.Version{}); err != nil {
		log.Fatal(err)
	}

	read, err := store.Get(ctx, slot)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(slot, read.Token)

	stale := read.Version()
	read.Generation++
	fmt.Println("refreshed:", store.Save(ctx, slot, read, stale))
	err = store.Save(ctx, slot, read, stale)
	fmt.Println("read again first:", errors.Is(err, tokenstore.ErrConflict))
	// Output:
	// made a key file: back it up
	// Microsoft_Graph/acme [redacted]
	// refreshed: <nil>
	// read again first: true
}

func ExampleNewRedis() {
	key, err := tokenstore.ParseKey([]byte(tokenstore.NewKey()))
	if err != nil {
		log.Fatal(err)
	}
	keys, err := tokenstore.NewKeyring(tokenstore.Key{ID: "2026-11", Bytes: key})
	if err != nil {
		log.Fatal(err)
	}
	_, err = tokenstore.NewRedis(context.Background(), tokenstore.RedisConfig{
		URL:  "rediss://user:secret@redis.example.com:6379?skip_verify=true",
		Keys: keys,
	})
	fmt.Println(err)
	// Output:
	// tokenstore: the redis URL says skip_verify: TLS without verification protects nothing
}
