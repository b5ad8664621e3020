package console_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow/console"
	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

func TestAPIRekeysAndTellsWhatIsLeft(t *testing.T) {
	var answer error
	s := newSite(t, func(cfg *console.Config) {
		cfg.Upkeep.Rekey = func(context.Context) (tokenstore.Rekeyed, error) {
			return tokenstore.Rekeyed{Key: "2026", Resealed: 3, Current: 2, Unreadable: 1}, answer
		}
	})
	w := s.call(operatorToken, http.MethodPost, "/rekey", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.JSONEq(t, `{"key":"2026","resealed":3,"current":2,"unreadable":1,"complete":false}`, w.Body.String())
	require.Contains(t, s.log.String(), `"action":"rekey"`)
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{tokenstore.ErrConflict, http.StatusConflict, "rekey_incomplete"},
		{tokenstore.ErrUnavailable, http.StatusServiceUnavailable, "store_unavailable"},
		{errors.New("else"), http.StatusInternalServerError, "internal_error"},
	} {
		answer = c.err
		requireProblem(t, s.call(operatorToken, http.MethodPost, "/rekey", ""), c.status, c.code)
	}
	requireProblem(t, s.call(operatorToken, http.MethodGet, "/rekey", ""), http.StatusMethodNotAllowed, "method_not_allowed")
}

func TestAPIStreamsABackup(t *testing.T) {
	store := storetest.OpenFile(t)
	s := newSite(t, func(cfg *console.Config) { cfg.Upkeep.Backup = store.Backup })
	w := s.call(operatorToken, http.MethodGet, "/backup", "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/octet-stream", w.Header().Get("Content-Type"))
	require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	require.Equal(t, strconv.Itoa(w.Body.Len()), w.Header().Get("Content-Length"))
	info, err := tokenstore.VerifyBackup(w.Body)
	require.NoError(t, err)
	require.Equal(t, store.ID(), info.Store)
	require.Contains(t, s.log.String(), `"action":"backup"`)
}

func TestAPIRefusesUpkeep(t *testing.T) {
	s := newSite(t)
	requireProblem(t, s.call(operatorToken, http.MethodGet, "/backup", ""), http.StatusNotImplemented, "not_supported")
	requireProblem(t, s.call(operatorToken, http.MethodPost, "/rekey", ""), http.StatusNotImplemented, "not_supported")

	touched := false
	s = newSite(t, func(cfg *console.Config) {
		cfg.Upkeep.Rekey = func(context.Context) (tokenstore.Rekeyed, error) { touched = true; return tokenstore.Rekeyed{}, nil }
		cfg.Upkeep.Backup = func() (*tokenstore.Backup, error) { touched = true; return nil, tokenstore.ErrUnavailable }
	})
	for _, token := range []string{"", "CANARY-wrong"} {
		requireProblem(t, s.call(token, http.MethodGet, "/backup", ""), http.StatusUnauthorized, "operator_unauthenticated")
		requireProblem(t, s.call(token, http.MethodPost, "/rekey", ""), http.StatusUnauthorized, "operator_unauthenticated")
	}
	require.False(t, touched)
	requireProblem(t, s.call(operatorToken, http.MethodGet, "/backup", ""), http.StatusServiceUnavailable, "store_unavailable")
}
