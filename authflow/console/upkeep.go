package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// chunkTimeout bounds how long a reader of a backup may take for each piece of it: the whole may take as long as it needs.
const chunkTimeout = time.Minute

// rekeyJSON is what a rekey did, as the API shows it.
type rekeyJSON struct {
	Key        string `json:"key"`
	Resealed   int    `json:"resealed"`
	Current    int    `json:"current"`
	Unreadable int    `json:"unreadable"`
	Complete   bool   `json:"complete"`
}

func (c *console) postRekey(r *http.Request, v visit) (any, error) {
	if err := readJSON(r, &struct{}{}); err != nil {
		return nil, err
	}
	if c.rekey == nil {
		return nil, unsupported("This store cannot change its key.")
	}
	done, err := c.rekey(r.Context())
	if errors.Is(err, tokenstore.ErrConflict) {
		err = &failure{status: http.StatusConflict, code: "rekey_incomplete",
			detail: "Give every replica the newest key, then try again."}
	}
	c.logAction(r.Context(), "rekey", v, tokenstore.Slot{}, err)
	if err != nil {
		return nil, err
	}
	return rekeyJSON(done), nil
}

func (c *console) getBackup(r *http.Request, v visit) (any, error) {
	if c.backup == nil {
		return nil, unsupported("A backup is made of a file store only. Redis backs itself up: copy its RDB or append-only files.")
	}
	b, err := c.backup()
	c.logAction(r.Context(), "backup", v, tokenstore.Slot{}, err)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// unsupported is the failure of a call that this store does not know.
func unsupported(detail string) *failure {
	return &failure{status: http.StatusNotImplemented, code: "not_supported", detail: detail}
}

// unhurried lets a call work for longer than the listener lets others.
func unhurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // where there is none, nothing hurries
		h.ServeHTTP(w, r)
	})
}

// stream writes a backup. A client learns from the length, and from the digest at the end, whether it got all of it.
func stream(w http.ResponseWriter, b *tokenstore.Backup) {
	defer func() { _ = b.Close() }() // the copy goes with the process at the latest
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(b.Size, 10))
	h.Set("Content-Disposition", `attachment; filename="bifrost.backup"`)
	_, _ = b.WriteTo(chunks{w, http.NewResponseController(w)}) // a client that has gone is not our failure
}

// chunks gives every write its own time.
type chunks struct {
	io.Writer
	control *http.ResponseController
}

// Write gives up on a reader that takes nothing for chunkTimeout.
func (c chunks) Write(p []byte) (int, error) {
	_ = c.control.SetWriteDeadline(time.Now().Add(chunkTimeout)) // where there is none, nothing hurries
	return c.Writer.Write(p)
}

// Upkeep is what an operator can have done to the store as a whole. A nil function is answered with 501 not_supported.
type Upkeep struct {
	Rekey  func(context.Context) (tokenstore.Rekeyed, error)
	Backup func() (*tokenstore.Backup, error)
}
