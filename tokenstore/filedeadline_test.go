package tokenstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/tokenstore"
	"github.com/bifrost-proxy/bifrost/tokenstore/storetest"
)

// On a machine so busy that a goroutine runs only after its deadline, the file was reported to be away, and requests failed
// that it could have served.
func TestFileIsNotAwayBecauseTheMachineIsBusy(t *testing.T) {
	s := storetest.OpenFile(t)
	slot := tokenstore.Slot{Integration: "Microsoft_Graph", Org: "acme"}
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	require.NoError(t, s.Save(late, slot, storetest.Grant(), tokenstore.Version{}))
	_, err := s.Get(late, slot)
	require.NoError(t, err)

	given, giveUp := context.WithCancel(t.Context())
	giveUp()
	_, err = s.Get(given, slot)
	require.ErrorIs(t, err, tokenstore.ErrUnavailable)
}
